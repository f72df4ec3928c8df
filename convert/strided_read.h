// Elements of a strided view, read in logical order from bytes that are only readable by offset.
#ifndef QUIRE_CONVERT_STRIDED_READ_H_
#define QUIRE_CONVERT_STRIDED_READ_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

namespace quire {

struct StridedView {
  int64_t offset_bytes = 0;  // of element [0, ..., 0]
  int element_bytes = 1;
  std::vector<int64_t> shape;    // slowest first
  std::vector<int64_t> strides;  // in elements, not negative; as many as dimensions

  // True if elements lie one behind the other in logical order.
  bool IsContiguous() const;
  // Bytes from element [0, ..., 0] to the end of the last one; 0 if there is none. Precondition:
  // fits int64.
  int64_t SpanBytes() const;
};

// Fills `out` with elements [begin, begin + count) in row-major order. A contiguous view costs one
// call of `read`; another is gathered through a buffer of at most 1 MiB, and pieces that lie within
// a page of one another are read together.
absl::Status ReadStrided(const StridedView& view, int64_t begin, int64_t count,
                         absl::FunctionRef<absl::Status(int64_t offset, absl::Span<uint8_t>)> read,
                         absl::Span<uint8_t> out);

}  // namespace quire

#endif  // QUIRE_CONVERT_STRIDED_READ_H_
