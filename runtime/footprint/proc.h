// What /proc says of a process and of the machine: text in, struct out. All sizes in bytes; a
// field that the text does not have stays 0. (/proc/PID/status: format/process_memory.h.)
#ifndef QUIRE_RUNTIME_FOOTPRINT_PROC_H_
#define QUIRE_RUNTIME_FOOTPRINT_PROC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

// The counters of one mapping, or of all of a process.
struct MappingCounts {
  int64_t rss = 0;  // pages of it in this process's page tables
  int64_t pss = 0;  // the same, each page divided by the number of processes that map it
  int64_t shared_clean = 0, shared_dirty = 0;
  int64_t private_clean = 0, private_dirty = 0;  // mapped by this process alone
  int64_t referenced = 0;                        // accessed since /proc/PID/clear_refs was written
  int64_t anonymous = 0;                         // backed by no file, or copied on a write
  int64_t swap = 0;
  int64_t huge_file_pages = 0;  // FilePmdMapped
};

// One mapping of /proc/PID/smaps.
struct SmapsEntry {
  uint64_t begin = 0, end = 0;  // addresses
  std::string permissions;      // "r--s": s shared, p private
  uint64_t offset = 0;          // of the file
  std::string device;           // "fe:00"
  uint64_t inode = 0;
  std::string path;  // or "[heap]", "[stack]", ""
  MappingCounts counts;
};

std::vector<SmapsEntry> ParseSmaps(absl::string_view text);
// /proc/PID/smaps_rollup: the sums over smaps, which the kernel makes faster.
MappingCounts ParseSmapsRollup(absl::string_view text);
MappingCounts Sum(const std::vector<SmapsEntry>& entries);

// /proc/PID/io.
struct ProcIo {
  int64_t rchar = 0;       // asked for by read(), from wherever it came
  int64_t read_bytes = 0;  // fetched from storage, page faults on a mapping and readahead included
  int64_t write_bytes = 0;
};
ProcIo ParseProcIo(absl::string_view text);

// /proc/PID/stat. InvalidArgument where it is cut short.
struct ProcStat {
  int pid = 0;
  std::string command;
  char state = 0;
  int64_t minor_faults = 0;  // a page that was in memory already was mapped
  int64_t major_faults = 0;  // the process had to wait for storage
  int64_t user_ticks = 0, system_ticks = 0, start_ticks = 0;
  int64_t rss_pages = 0;  // pages, not bytes
};
absl::StatusOr<ProcStat> ParseProcStat(absl::string_view text);

// /proc/meminfo.
struct MemInfo {
  int64_t total = 0, free = 0;
  int64_t available = 0;  // free, and what the kernel could free without swapping (an estimate)
  int64_t buffers = 0;
  int64_t cached = 0;       // the page cache
  int64_t reclaimable = 0;  // SReclaimable; `free` counts it as cache
  int64_t anonymous = 0;    // AnonPages
  int64_t mapped = 0;       // the part of the page cache that some process maps
  int64_t page_tables = 0;
};
MemInfo ParseMemInfo(absl::string_view text);

// A PSI file, such as /proc/pressure/memory: the share of time, in percent, in which some (all)
// tasks waited for memory.
struct Pressure {
  double some_avg10 = 0, some_avg60 = 0, full_avg10 = 0, full_avg60 = 0;
  int64_t some_total_us = 0, full_total_us = 0;
};
// InvalidArgument where the line "some" is missing.
absl::StatusOr<Pressure> ParsePressure(absl::string_view text);

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_PROC_H_
