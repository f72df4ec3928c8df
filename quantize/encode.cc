#include "quantize/encode.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "format/half.h"
#include "quantize/kernels/kernels.h"
#include "quantize/row_encoder.h"

namespace quire {

const int8_t kQ4Codebook[kCodebookSize] = {-112, -89, -71, -54, -39, -26, -13, 0,
                                           12,   25,  38,  52,  67,  83,  103, 127};

namespace {

void EncodePanel(const Geometry& geometry, const int8_t* codebook, const float* column_weights,
                 const float* rows, int64_t n_rows, uint8_t* out, EncodingError* error) {
  // Reused from panel to panel: [padded_cols][16] and [groups][16].
  static thread_local std::vector<float> columns, scratch;
  columns.assign(geometry.padded_cols() * kPanelRows, 0.0f);
  scratch.resize(geometry.groups() * kPanelRows);
  for (int64_t c = 0; c < geometry.cols; c += kGroupColumns) {
    const int64_t end = std::min(geometry.cols, c + kGroupColumns);
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t k = c; k < end; ++k) columns[k * kPanelRows + r] = rows[r * geometry.cols + k];
    }
  }
  double squared_error[kPanelRows] = {}, squared_norm[kPanelRows] = {};
  const int index = static_cast<int>(geometry.encoding) - 1;
  ChooseEncodeKernels().encode[index]({columns.data(), geometry.cols, geometry.groups(), codebook,
                                       column_weights, scratch.data(), out, squared_error,
                                       squared_norm});
  for (int r = 0; r < kPanelRows; ++r) {
    error->squared_error += squared_error[r];
    error->squared_norm += squared_norm[r];
  }
}

}  // namespace

void EncodeUnit(const Geometry& geometry, const int8_t* codebook, const float* column_weights,
                const float* rows, int64_t n_rows, uint8_t* out, EncodingError* error) {
  std::memset(out, 0, geometry.unit_bytes());
  if (geometry.layout == Layout::kPanels) {
    EncodePanel(geometry, codebook, column_weights, rows, n_rows, out, error);
  } else {
    EncodeRow(geometry,
              {rows, 1, codebook, column_weights, &error->squared_error, &error->squared_norm}, 0,
              out);
  }
}

bool AllFinite(absl::Span<const float> values) {
  // An exponent of all ones, plus one, carries into bit 31.
  uint32_t carry = 0;
  for (float value : values) carry |= (FloatToBits(value) & 0x7f800000u) + 0x00800000u;
  return carry >> 31 == 0;
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
        std::memcpy(place.Code(group * kGroupColumns + k), block + info.scale_bytes + k, 4);
      }
    }
  }
}

}  // namespace quire
