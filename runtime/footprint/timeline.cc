#include "runtime/footprint/timeline.h"

#include <chrono>
#include <system_error>

#include "format/command_line.h"
#include "format/process_memory.h"

namespace quire {

Timeline::Timeline() : start_ns_(MonotonicNanoseconds()) {
  samples_.reserve(kMaxSamples);
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (const std::system_error&) {  // no thread to be had: the last sample alone
  }
}

Timeline::~Timeline() { Finish(); }

double Timeline::Milliseconds() const {
  return static_cast<double>(MonotonicNanoseconds() - start_ns_) * 1e-6;
}

std::vector<TimelineSample> Timeline::Finish() {
  if (!stop_.exchange(true)) {
    if (thread_.joinable()) thread_.join();
    Sample();
  }
  return samples_;
}

void Timeline::Run() {
  while (!stop_.load()) {
    Sample();
    std::this_thread::sleep_for(std::chrono::microseconds(interval_us_));
  }
}

void Timeline::Sample() {
  if (samples_.size() == kMaxSamples) {
    for (size_t i = 0; i < kMaxSamples / 2; ++i) samples_[i] = samples_[2 * i];
    samples_.resize(kMaxSamples / 2);
    interval_us_ *= 2;
  }
  const ProcessMemory memory = ReadProcessMemory();
  samples_.push_back({Milliseconds(), memory.rss_anon, memory.rss_file + memory.rss_shmem});
}

}  // namespace quire
