#include "quantize/stored_rows.h"

#include <xxhash.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/packed_layout.h"

namespace quire {

void DecodeRows(const TensorView& tensor, int64_t first_row, int64_t n_rows, float* out) {
  DecodeColumns(tensor, first_row, n_rows, tensor.geometry.cols, out);
}

void DecodeColumns(const TensorView& tensor, int64_t first_row, int64_t n_rows, int64_t n_cols,
                   float* out) {
  const Geometry& g = tensor.geometry;
  // Whole blocks at a panel's start are a narrower panel.
  Geometry part = g;
  if (g.layout == Layout::kPanels && n_cols % (kBlockGroups * kGroupColumns) == 0) {
    part.cols = n_cols;
  }
  std::vector<float> unit(g.unit_rows() * part.padded_cols());
  for (int64_t row = 0; row < n_rows; row += g.unit_rows()) {
    const int64_t index = (first_row + row) / g.unit_rows();
    DecodeUnit(part, tensor.codebook, tensor.data + index * g.unit_bytes(), 0, unit.data());
    for (int64_t r = 0; r < std::min(g.unit_rows(), n_rows - row); ++r) {
      std::copy_n(unit.data() + r * part.padded_cols(), n_cols, out + (row + r) * n_cols);
    }
  }
}

absl::Status CheckSum(const TensorView& tensor) {
  if (XXH3_64bits(tensor.data, tensor.bytes) == tensor.xxh3) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the checksum of its ", tensor.bytes, " bytes at offset ",
                                          tensor.offset, " differs: the file is damaged"));
}

}  // namespace quire
