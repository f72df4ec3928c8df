// Encoding rows of floats into the stored layouts of format/packed_layout.h: the inverse of its
// decoder.
#ifndef QUIRE_QUANTIZE_ENCODE_H_
#define QUIRE_QUANTIZE_ENCODE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "format/packed_layout.h"

namespace quire {

// Sums over elements, in double, for relative RMS error = sqrt(squared_error / squared_norm).
struct EncodingError {
  double squared_error = 0, squared_norm = 0;
};

// The encoder's codebook for an encoding: Info(encoding).codebook_size int8 values, ascending, so
// that code order is value order. Null where it is 0.
const int8_t* CodebookFor(Encoding encoding);

// Reused from unit to unit: [padded_cols][16] and [groups][16].
struct EncodeScratch {
  std::vector<float> columns, groups;
};

// Encodes one unit (a panel: up to 16 rows; a ROWS row: 1) of a tensor: rows [n_rows x
// geometry.cols] row-major, finite floats. Missing rows and columns become zeros. `out` receives
// geometry.unit_bytes(). `codebook` as in the manifest; null where the encoding has none.
// Deterministic: the result depends on the arguments alone, on every CPU. `column_weights`
// (geometry.cols values >= 0, or null: all equal) weigh each column's squared error. Adds to
// *error. Thread-safe; a scratch belongs to one thread.
void EncodeUnit(const Geometry& geometry, const int8_t* codebook, const float* column_weights,
                const float* rows, int64_t n_rows, uint8_t* out, EncodingError* error,
                EncodeScratch* scratch);
inline void EncodeUnit(const Geometry& geometry, const int8_t* codebook,
                       const float* column_weights, const float* rows, int64_t n_rows, uint8_t* out,
                       EncodingError* error) {
  EncodeScratch scratch;
  EncodeUnit(geometry, codebook, column_weights, rows, n_rows, out, error, &scratch);
}

// Whether no value is NaN or infinite.
bool AllFinite(absl::Span<const float> values);

// Carries GGUF blocks over bit for bit. rows: n_rows x (cols / 32) blocks of 18 (Q4_0), 20 (Q4_1)
// or 34 (Q8_0) bytes, row after row. Preconditions: geometry.encoding is kQ4_0, kQ4_1 or kQ8, and
// geometry.cols a multiple of 32.
void RepackGgmlUnit(const Geometry& geometry, const uint8_t* blocks, int64_t n_rows, uint8_t* out);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_ENCODE_H_
