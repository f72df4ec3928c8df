#include "format/process_memory.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace quire {

ProcessMemory ParseProcStatus(absl::string_view text) {
  ProcessMemory memory;
  const struct {
    absl::string_view key;
    int64_t* value;
  } fields[] = {{"VmRSS:", &memory.rss},
                {"RssAnon:", &memory.rss_anon},
                {"RssFile:", &memory.rss_file},
                {"RssShmem:", &memory.rss_shmem},
                {"VmHWM:", &memory.peak_rss}};
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    for (const auto& field : fields) {
      int64_t kib;
      if (absl::ConsumePrefix(&line, field.key) && absl::ConsumeSuffix(&line, " kB") &&
          absl::SimpleAtoi(line, &kib)) {
        *field.value = kib * 1024;
      }
    }
  }
  return memory;
}

ProcessMemory ReadProcessMemory() {
  std::ifstream in("/proc/self/status");
  std::stringstream text;
  text << in.rdbuf();
  return ParseProcStatus(text.str());
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
