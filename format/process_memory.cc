#include "format/process_memory.h"

#include <algorithm>
#include <chrono>
#include <system_error>

#include "format/kernel_text.h"

namespace quire {

ProcessMemory ParseProcStatus(absl::string_view text) {
  ProcessMemory memory;
  ParseKernelFields(text, {{"VmRSS", &memory.rss},
                           {"RssAnon", &memory.rss_anon},
                           {"RssFile", &memory.rss_file},
                           {"RssShmem", &memory.rss_shmem},
                           {"VmHWM", &memory.peak_rss},
                           {"VmSize", &memory.address_space},
                           {"VmPTE", &memory.page_tables},
                           {"VmSwap", &memory.swap}});
  return memory;
}

ProcessMemory ReadProcessMemory() {
  return ParseProcStatus(ReadKernelText("/proc/self/status").value_or(""));
}

PeakAnonymousMemory::PeakAnonymousMemory() {
  Sample();
  try {
    thread_ = std::thread([this] {
      while (!stop_.load()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        Sample();
      }
    });
  } catch (const std::system_error&) {  // no thread to be had: only the samples of bytes()
  }
}

PeakAnonymousMemory::~PeakAnonymousMemory() {
  stop_.store(true);
  if (thread_.joinable()) thread_.join();
}

int64_t PeakAnonymousMemory::bytes() {
  Sample();
  return peak_.load();
}

void PeakAnonymousMemory::Sample() {
  const int64_t now = ReadProcessMemory().rss_anon;
  int64_t peak = peak_.load();
  while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
  }
}

}  // namespace quire
