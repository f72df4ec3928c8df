#include "quantize/encode.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "format/half.h"
#include "quantize/kernels/kernels.h"
#include "quantize/row_encoder.h"

namespace quire {

namespace {

// Lloyd's algorithm on groups of trained weights divided by their largest element, with the scale
// search in the loop; zero kept exact.
constexpr int8_t kQ4Codebook[] = {-110, -86, -67, -51, -37, -24, -12, 0,
                                  11,   22,  34,  48,  62,  79,  99,  127};
constexpr int8_t kQ5Codebook[] = {-116, -103, -92, -82, -73, -65, -58, -51, -45, -38, -32,
                                  -25,  -19,  -13, -6,  0,   6,   13,  19,  25,  32,  38,
                                  45,   51,   58,  66,  74,  83,  93,  105, 120, 127};

typedef float F4 __attribute__((vector_size(16)));

F4 Load4(const float* p) {
  F4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// out[k * 16 + r] = rows[r * stride + k] for k, r < 4.
inline void Transpose4x4(const float* rows, int64_t stride, float* out) {
  const F4 a = Load4(rows), b = Load4(rows + stride), c = Load4(rows + 2 * stride),
           d = Load4(rows + 3 * stride);
  const F4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
           cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const F4 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7),
           cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const F4 columns[4] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                         __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (int k = 0; k < 4; ++k) std::memcpy(out + k * kPanelRows, &columns[k], sizeof columns[k]);
}

// Sets the rows of a panel side by side: columns[c][r] = rows[r][c], zero for the rest of
// columns[padded_cols][16].
void Transpose(const Geometry& geometry, const float* rows, int64_t n_rows, float* columns) {
  const int64_t cols = geometry.cols, whole_cols = cols / 4 * 4, whole_rows = n_rows / 4 * 4;
  if (n_rows < kPanelRows) std::fill_n(columns, cols * kPanelRows, 0.0f);
  std::fill_n(columns + cols * kPanelRows, (geometry.padded_cols() - cols) * kPanelRows, 0.0f);
  // Group by group, so that each cache line of a row is read at once: rows may lie a multiple of 4
  // KiB apart.
  for (int64_t first = 0; first < whole_cols; first += kGroupColumns) {
    for (int64_t r = 0; r < whole_rows; r += 4) {
      for (int64_t c = first; c < std::min(whole_cols, first + kGroupColumns); c += 4) {
        Transpose4x4(rows + r * cols + c, cols, columns + c * kPanelRows + r);
      }
    }
  }
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; ++c)
      columns[c * kPanelRows + r] = rows[r * cols + c];
  }
}

void EncodePanel(const Geometry& geometry, const int8_t* codebook, const float* column_weights,
                 const float* rows, int64_t n_rows, uint8_t* out, EncodingError* error,
                 EncodeScratch* scratch) {
  std::vector<float>& columns = scratch->columns;
  columns.resize(geometry.padded_cols() * kPanelRows);
  scratch->groups.resize(geometry.groups() * kPanelRows);
  Transpose(geometry, rows, n_rows, columns.data());
  double squared_error[kPanelRows] = {}, squared_norm[kPanelRows] = {};
  const int index = static_cast<int>(geometry.encoding) - 1;
  ChooseEncodeKernels().encode[index]({columns.data(), geometry.cols, geometry.groups(), codebook,
                                       column_weights, scratch->groups.data(), out, squared_error,
                                       squared_norm});
  for (int r = 0; r < kPanelRows; ++r) {
    error->squared_error += squared_error[r];
    error->squared_norm += squared_norm[r];
  }
}

}  // namespace

const int8_t* CodebookFor(Encoding encoding) {
  switch (Info(encoding).codebook_size) {
    case sizeof kQ4Codebook:
      return kQ4Codebook;
    case sizeof kQ5Codebook:
      return kQ5Codebook;
    default:
      return nullptr;
  }
}

void EncodeUnit(const Geometry& geometry, const int8_t* codebook, const float* column_weights,
                const float* rows, int64_t n_rows, uint8_t* out, EncodingError* error,
                EncodeScratch* scratch) {
  std::memset(out, 0, geometry.unit_bytes());
  if (geometry.layout == Layout::kPanels) {
    EncodePanel(geometry, codebook, column_weights, rows, n_rows, out, error, scratch);
  } else {
    EncodeRow(geometry, {rows, 1, codebook, column_weights}, 0, out, &error->squared_error,
              &error->squared_norm);
  }
}

bool AllFinite(absl::Span<const float> values) {
  // An exponent of all ones, plus one, carries into bit 31.
  const auto carry = [](float value) { return (FloatToBits(value) & 0x7f800000u) + 0x00800000u; };
  uint32_t carries[16] = {};  // in lanes, for the compiler to vectorize
  const size_t whole = values.size() / 16 * 16;
  for (size_t i = 0; i < whole; i += 16) {
    for (size_t k = 0; k < 16; ++k) carries[k] |= carry(values[i + k]);
  }
  for (size_t i = whole; i < values.size(); ++i) carries[i - whole] |= carry(values[i]);
  uint32_t any = 0;
  for (uint32_t c : carries) any |= c;
  return any >> 31 == 0;
}

void RepackGgmlUnit(const Geometry& geometry, const uint8_t* blocks, int64_t n_rows, uint8_t* out) {
  const EncodingInfo& info = Info(geometry.encoding);
  const int code_bytes = kGroupColumns * info.code_bits / 8,
            block_bytes = info.scale_bytes + code_bytes;
  std::memset(out, 0, geometry.unit_bytes());
  for (int64_t row = 0; row < n_rows; ++row) {
    const RowPlace place(geometry, static_cast<int>(row), out);
    for (int64_t group = 0; group < geometry.groups(); ++group) {
      const uint8_t* block = blocks + (row * geometry.groups() + group) * block_bytes;
      std::memcpy(place.Scale(group), block, info.scale_bytes);
      // Four codes' bytes lie together in either layout; both share their order within a group with
      // GGUF.
      for (int k = 0; k < code_bytes; k += 4) {
        std::memcpy(place.CodeByte(group * kGroupColumns + k), block + info.scale_bytes + k, 4);
      }
    }
  }
}

}  // namespace quire
