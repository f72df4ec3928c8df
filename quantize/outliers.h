// What the weights alone tell about a layer's w_down.
#ifndef QUIRE_QUANTIZE_OUTLIERS_H_
#define QUIRE_QUANTIZE_OUTLIERS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "quantize/scheme.h"

namespace quire {

// Fills `out` with the first n_cols columns of rows [first_row, first_row + n_rows) of tensor
// `index`, row-major. n_cols is all of its columns or a multiple of 256, first_row one of 16.
using ReadColumns = absl::FunctionRef<absl::Status(size_t index, int64_t first_row, int64_t n_rows,
                                                   int64_t n_cols, float* out)>;

// For each layer the largest of its FFN's hidden units beside the median one, by the product of the
// lengths of a unit's rows in w_gate and w_up: 2 to 6 in most layers, beyond kOutlier in the few
// where a unit writes one of the huge values that then stay in the residual stream ("massive
// activations", Sun et al. 2024), so that w_down is worth more bits. 1 where a layer lacks either
// matrix. Reads the first 256 columns, which suffice to tell, row by row. The first error of
// `read`.
absl::StatusOr<std::vector<double>> HiddenOutliers(absl::Span<const SchemeTensor> tensors,
                                                   int n_layers, ReadColumns read);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_OUTLIERS_H_
