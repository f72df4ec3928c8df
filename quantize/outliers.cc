#include "quantize/outliers.h"

#include <algorithm>
#include <cmath>

namespace quire {
namespace {

constexpr int64_t kColumns = 256;
constexpr int64_t kRowsAtOnce = 256;

// (*product)[row] *= the length of the row's first columns.
absl::Status MultiplyByLengths(const SchemeTensor& tensor, size_t index, ReadColumns read,
                               std::vector<float>* product) {
  const int64_t cols = std::min(tensor.cols, kColumns);
  std::vector<float> rows(kRowsAtOnce * cols);
  for (int64_t first = 0; first < tensor.rows; first += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, tensor.rows - first);
    absl::Status status = read(index, first, n, cols, rows.data());
    if (!status.ok()) return status;
    for (int64_t r = 0; r < n; ++r) {
      float sum = 0;
      for (int64_t c = 0; c < cols; ++c) sum += rows[r * cols + c] * rows[r * cols + c];
      (*product)[first + r] *= std::sqrt(sum);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<double>> HiddenOutliers(absl::Span<const SchemeTensor> tensors,
                                                   int n_layers, ReadColumns read) {
  std::vector<double> result;
  for (int layer = 0; layer < n_layers; ++layer) {
    const auto find = [&](TensorRole role) {
      return std::find_if(tensors.begin(), tensors.end(), [&](const SchemeTensor& tensor) {
        return tensor.name.role == role && tensor.name.layer == layer;
      });
    };
    const auto gate = find(TensorRole::kGate), up = find(TensorRole::kUp);
    result.push_back(1);
    if (gate == tensors.end() || up == tensors.end() || gate->rows != up->rows) continue;
    std::vector<float> product(gate->rows, 1.0f);
    for (const auto tensor : {gate, up}) {
      absl::Status status = MultiplyByLengths(*tensor, tensor - tensors.begin(), read, &product);
      if (!status.ok()) return status;
    }
    for (float& length : product) {
      if (!std::isfinite(length)) length = 0;  // refused when it is encoded
    }
    const float largest = *std::max_element(product.begin(), product.end());
    const auto middle = product.begin() + static_cast<int64_t>(product.size() / 2);
    std::nth_element(product.begin(), middle, product.end());
    if (*middle > 0) result.back() = double{largest} / *middle;
  }
  return result;
}

}  // namespace quire
