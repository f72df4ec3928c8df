// Rows of a stored tensor as floats.
#ifndef QUIRE_QUANTIZE_STORED_ROWS_H_
#define QUIRE_QUANTIZE_STORED_ROWS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "format/model_file.h"

namespace quire {

// Decodes rows [first_row, first_row + n_rows) x geometry.cols, row-major; padding is dropped.
// Precondition: first_row is a multiple of geometry.unit_rows(). Thread-safe.
void DecodeRows(const TensorView& tensor, int64_t first_row, int64_t n_rows, float* out);
// The same of the first n_cols columns; where these are a multiple of 128 of a matrix in panels, no
// others are touched.
void DecodeColumns(const TensorView& tensor, int64_t first_row, int64_t n_rows, int64_t n_cols,
                   float* out);

// DataLoss where the stored bytes differ from their checksum: damage must not get a new, matching
// one.
absl::Status CheckSum(const TensorView& tensor);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_STORED_ROWS_H_
