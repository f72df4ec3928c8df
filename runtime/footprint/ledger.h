// A process's memory in columns that add up, and what common tools make of it.
#ifndef QUIRE_RUNTIME_FOOTPRINT_LEDGER_H_
#define QUIRE_RUNTIME_FOOTPRINT_LEDGER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "format/model_file.h"
#include "format/process_memory.h"
#include "runtime/footprint/cgroup.h"
#include "runtime/footprint/proc.h"

namespace quire {

// What the runtime has taken for itself: address space, and the part of it that has been touched.
struct RuntimeMemory {
  int64_t kv_cache_bytes = 0, kv_cache_resident = 0;
  int64_t scratch_bytes = 0, scratch_resident = 0;
  int64_t stream_bytes = 0, stream_resident = 0;  // buffers for weights that are not kept
};

// Bytes. rss = anonymous + weights + other_files; anonymous = kv_cache + scratch + stream +
// other_anonymous.
// All from one reading of /proc/PID/smaps, except page_tables and address_space.
struct Ledger {
  int64_t rss = 0;
  int64_t anonymous = 0;  // this process's own: only this is used up for good
  int64_t kv_cache = 0;   // of it, touched so far
  int64_t scratch = 0;
  int64_t stream = 0;
  int64_t other_anonymous = 0;  // heap, stacks, the program's writable data
  int64_t weights = 0;          // pages of the model file that this process maps at the moment
  int64_t other_files = 0;      // program and libraries
  int64_t pss = 0;              // rss with every shared page divided among those who map it
  int64_t weights_pss = 0;
  int64_t weights_anonymous = 0;  // copied on a write: 0, or the mapping is not what it should be
  // Dirty pages that nobody else maps. The mapping is read-only: they are dirty because whoever
  // wrote the file has done so lately, and the disk does not have them yet.
  int64_t weights_private_dirty = 0;
  int64_t swap = 0;
  int64_t page_tables = 0;    // on top of rss
  int64_t address_space = 0;  // what top calls VIRT
};

// The model's mapping is [begin, begin + bytes). Pure: tested on recorded texts.
Ledger Reconcile(const std::vector<SmapsEntry>& smaps, const ProcessMemory& status, uint64_t begin,
                 uint64_t bytes, const RuntimeMemory& own);

// Of this process, now. FailedPrecondition where the kernel has no /proc/self/smaps.
absl::StatusOr<Ledger> ReadLedger(const MappedFile& file, const RuntimeMemory& own);

// One figure that a tool would show at the same moment.
struct ToolFigure {
  std::string tool;     // "top, htop"
  std::string column;   // "RES"
  std::string formula;  // "anonymous + weights + program"
  int64_t bytes = 0;
  std::string meaning;  // what a reader may and may not conclude
};
// `cgroup`: where this process is in one.
std::vector<ToolFigure> ToolFigures(const Ledger& ledger, const MemInfo& machine,
                                    const std::optional<CgroupMemory>& cgroup);

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_LEDGER_H_
