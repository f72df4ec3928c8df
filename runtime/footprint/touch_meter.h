// What a stretch of work really reads of a mapped file, tensor by tensor, to the page.
#ifndef QUIRE_RUNTIME_FOOTPRINT_TOUCH_METER_H_
#define QUIRE_RUNTIME_FOOTPRINT_TOUCH_METER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/model_file.h"
#include "runtime/footprint/proc.h"

namespace quire {

// How it measures. The processor marks a page's entry in the page tables when it reads through it;
// /proc/self/clear_refs clears those marks, and smaps adds them up mapping by mapping
// ("Referenced"). So the file's one mapping is cut at the tensors' starts (by a flag that only
// matters to core dumps), and needs no privilege. Being mapped is not evidence of being read: a
// fault maps the cached pages around it as well (fault-around), and marks them. Therefore the work
// is done twice: once to map what it reads, then, with the marks cleared, to be measured.
//
// The mapping stays cut, in small pages, so measure last. Not thread-safe; nothing else may use the
// mapping during Begin. Other processes that read the file at the same time can add to the count,
// never subtract.
class TouchMeter {
 public:
  // `starts`: offsets that begin a part, ascending, multiples of the page size; the last part ends
  // with the file. The file must outlive the meter. FailedPrecondition where this kernel has no
  // clear_refs or smaps, or the parts are not on page boundaries.
  static absl::StatusOr<TouchMeter> Create(const MappedFile& file, std::vector<int64_t> starts);

  // Forgets all reads so far. Call it when the work has been done once, then do the work again.
  absl::Status Begin();
  // Counts of each part; `referenced` is what was read since Begin, in whole pages.
  absl::StatusOr<std::vector<MappingCounts>> Read() const;

 private:
  TouchMeter(const MappedFile& file, std::vector<int64_t> starts)
      : file_(&file), starts_(std::move(starts)) {}

  const MappedFile* file_;
  std::vector<int64_t> starts_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_TOUCH_METER_H_
