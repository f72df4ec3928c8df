#include "quantize/stored_rows.h"

#include <algorithm>
#include <vector>

#include "format/packed_layout.h"

namespace quire {

void DecodeRows(const TensorView& tensor, int64_t first_row, int64_t n_rows, float* out) {
  const Geometry& g = tensor.geometry;
  static thread_local std::vector<float> unit;
  unit.resize(g.unit_rows() * g.padded_cols());
  for (int64_t row = 0; row < n_rows; row += g.unit_rows()) {
    DecodeUnit(g, tensor.codebook, tensor.data, (first_row + row) / g.unit_rows(), unit.data());
    for (int64_t r = 0; r < std::min(g.unit_rows(), n_rows - row); ++r) {
      std::copy_n(unit.data() + r * g.padded_cols(), g.cols, out + (row + r) * g.cols);
    }
  }
}

}  // namespace quire
