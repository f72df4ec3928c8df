// A whole tensor, from a reader of rows to stored bytes, in bounded memory: reading, encoding and
// writing overlap.
#ifndef QUIRE_QUANTIZE_ENCODE_TENSOR_H_
#define QUIRE_QUANTIZE_ENCODE_TENSOR_H_

#include <cstdint>
#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "format/packed_layout.h"
#include "format/thread_pool.h"
#include "quantize/encode.h"
#include "quantize/error_feedback.h"

namespace quire {

// Fills `out` with rows [first_row, first_row + n_rows) x geometry.cols, row-major. Called from
// several threads at once, for ranges that begin at a multiple of geometry.unit_rows(), each row
// once.
using ReadRows = absl::FunctionRef<absl::Status(int64_t first_row, int64_t n_rows, float* out)>;
// The same for GGUF blocks: n_rows x (cols / 32) blocks of 18 (Q4_0), 20 (Q4_1) or 34 (Q8_0) bytes.
using ReadBlocks = absl::FunctionRef<absl::Status(int64_t first_row, int64_t n_rows, uint8_t* out)>;
// Takes the tensor's bytes in file order: FileWriter::Append. Called from one thread at a time, not
// the caller's.
using AppendBytes = std::function<absl::Status(absl::Span<const uint8_t> bytes)>;

// What all functions share.
struct TensorSink {
  ThreadPool& pool;
  AppendBytes append;
  // Buffers together take at most this many bytes, whatever the tensor's size; fewer threads work
  // where it is small. What ReadRows allocates is not counted.
  int64_t memory_budget;
  int64_t memory_used = 0;  // of it, by others meanwhile
};

// Encodes every unit of a tensor, as EncodeUnit (encode.h) does, and appends the units in order.
// The bytes do not depend on the pool's size. FailedPrecondition, with row and column, where a
// value is NaN or infinite; ResourceExhausted where one unit's rows alone exceed the budget;
// otherwise the first error of `read` or `append`. On an error an unfinished part of the tensor may
// have been appended.
absl::StatusOr<EncodingError> EncodeTensor(const Geometry& geometry, const int8_t* codebook,
                                           const float* column_weights, ReadRows read,
                                           const TensorSink& sink);

// The same as EncodeWithFeedback (error_feedback.h) does, for a geometry that it takes.
absl::StatusOr<EncodingError> EncodeTensorWithFeedback(const Geometry& geometry,
                                                       const int8_t* codebook,
                                                       const ErrorFeedback& feedback, ReadRows read,
                                                       const TensorSink& sink);

// The smallest budget with which it succeeds.
int64_t LeastFeedbackBytes(const Geometry& geometry);

// Encodes the tensor of this name, whose rows `read` gives: EncodeTensor, or better for what is
// known about its inputs.
using EncodeNamed = std::function<absl::StatusOr<EncodingError>(
    absl::string_view name, const Geometry& geometry, const int8_t* codebook, ReadRows read,
    const TensorSink& sink)>;
// EncodeTensor.
absl::StatusOr<EncodingError> EncodePlainly(absl::string_view name, const Geometry& geometry,
                                            const int8_t* codebook, ReadRows read,
                                            const TensorSink& sink);

// Carries a tensor of GGUF blocks over bit for bit. Preconditions of RepackGgmlUnit (encode.h).
// FailedPrecondition where a scale is not finite.
absl::Status RepackTensor(const Geometry& geometry, ReadBlocks read, const TensorSink& sink);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_ENCODE_TENSOR_H_
