// compressed-tensors' pack-quantized form of a matrix: symmetric 4-bit integers, a scale for each
// group of columns. Column k of a row is in word k / 8, bits 4 (k % 8), as its value plus 8.
#ifndef QUIRE_CONVERT_EXPORT_PACK_QUANTIZED_H_
#define QUIRE_CONVERT_EXPORT_PACK_QUANTIZED_H_

#include <string>
#include <vector>

#include "convert/export/output_tensor.h"

namespace quire {

// The tensors that stand for the weight of a linear layer ("model.layers.0.mlp.up_proj"):
// .weight_packed I32 [rows, cols / 8], .weight_scale F16 [rows, cols / 32], .weight_shape I64 [2].
// Precondition: q4_0, and cols a multiple of 32.
std::vector<OutputTensor> AsPackQuantized(const std::string& layer, const StoredRows& rows);

// "quantization_config" of config.json, as JSON text. `ignored`: linear layers that are not packed.
std::string PackQuantizedConfig(const std::vector<std::string>& ignored);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_PACK_QUANTIZED_H_
