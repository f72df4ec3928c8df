// This process's memory, as the kernel counts it.
#ifndef QUIRE_FORMAT_PROCESS_MEMORY_H_
#define QUIRE_FORMAT_PROCESS_MEMORY_H_

#include <atomic>
#include <cstdint>
#include <thread>

#include "absl/strings/string_view.h"

namespace quire {

// Bytes, from /proc/PID/status. Fields that the text does not have stay 0.
struct ProcessMemory {
  int64_t rss = 0;       // VmRSS = rss_anon + rss_file + rss_shmem
  int64_t rss_anon = 0;  // RssAnon: this process's own memory
  // RssFile: mapped files in RAM, shared with all who map them and with the page cache.
  int64_t rss_file = 0;
  int64_t rss_shmem = 0;  // RssShmem: likewise, of files in memory (tmpfs)
  int64_t peak_rss = 0;   // VmHWM
  // VmSize: addresses handed out, whether memory stands behind them or not.
  int64_t address_space = 0;
  int64_t page_tables = 0;  // VmPTE: what it takes to map all this; no part of any RSS
  int64_t swap = 0;         // VmSwap
};
ProcessMemory ParseProcStatus(absl::string_view text);
ProcessMemory ReadProcessMemory();

// The largest RssAnon over this object's life, sampled every few milliseconds by a thread: the
// kernel keeps a high-water mark of VmRSS alone, in which mapped files count.
class PeakAnonymousMemory {
 public:
  PeakAnonymousMemory();
  ~PeakAnonymousMemory();
  int64_t bytes();

 private:
  void Sample();
  std::atomic<int64_t> peak_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_FORMAT_PROCESS_MEMORY_H_
