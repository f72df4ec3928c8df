// One linear layer of a quantized checkpoint: 4-bit codes, scales and zero points, in the layouts
// of three tools.
#ifndef QUIRE_CONVERT_PACKED_LAYER_H_
#define QUIRE_CONVERT_PACKED_LAYER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "convert/tensor_source.h"

namespace quire {

enum class Packing {
  // weight_packed I32 [out, in / 8], weight_scale [out, groups], weight_zero_point I32
  // [out / 8, groups]. Element 8 i + j of the packed dimension: bits 4 j of word i.
  kCompressedTensors,
  // qweight I32 [in / 8, out], scales [groups, out], qzeros I32 [groups, out / 8], each zero point
  // less one (not so in "gptq_v2"), g_idx I32 [in]. Elements as above.
  kGptq,
  // qweight I32 [in, out / 8], scales [groups, out], qzeros I32 [groups, out / 8]. Elements
  // 8 i + {0, 2, 4, 6, 1, 3, 5, 7} from the low bits of word i up.
  kAwq,
};

// A weight is scale x (code - zero point), scale and zero point those of its group of columns.
struct PackedLayer {
  Packing packing;
  std::string name;  // "model.layers.0.mlp.up_proj"
  // In the checkpoint; -1: absent.
  int codes = -1, scales = -1, zeros = -1, shape = -1, order = -1;
  int zero_offset = 0;                     // what is added to a stored zero point
  int64_t rows = 0, cols = 0, groups = 0;  // out, in
  std::vector<int32_t> group_of_column;    // where columns of a group do not lie together
  bool asymmetric = false;                 // zero points other than 8
  std::string obstacle;                    // why it is no blocks of Q4_0 or Q4_1; empty: it is

  int64_t group_columns() const { return cols / groups; }
};

// Sets the dimensions of a layer whose parts are known and checks every shape. Reads the shape and
// the column order. group_size as the configuration has it: 0 where it does not say, -1: one group.
absl::Status CheckPackedLayer(const TensorSource& source, int64_t group_size, PackedLayer* layer);

// Sets asymmetric and obstacle. Reads zero points, and scales that are not f16. Precondition:
// CheckPackedLayer.
absl::Status FindObstacles(const TensorSource& source, PackedLayer* layer);

// Rows [first, first + n), columns [column, column + columns): blocks of Q4_0, or of Q4_1 where the
// layer is asymmetric, row after row. A minimum of Q4_1 is -scale x zero point, rounded to f16.
// Preconditions: FindObstacles found none; columns in multiples of 32. FailedPrecondition where a
// scale or minimum is not finite.
absl::Status ReadBlocks(const TensorSource& source, const PackedLayer& layer, int64_t first,
                        int64_t n, int64_t column, int64_t columns, uint8_t* out);
// The same as dequantized f32. Columns in any number.
absl::Status ReadWeights(const TensorSource& source, const PackedLayer& layer, int64_t first,
                         int64_t n, int64_t column, int64_t columns, float* out);

}  // namespace quire

#endif  // QUIRE_CONVERT_PACKED_LAYER_H_
