// Checkpoints whose linear layers are 4-bit codes beside scales: compressed-tensors
// (pack-quantized), GPTQ and AWQ.
#ifndef QUIRE_CONVERT_QUANTIZED_SOURCE_H_
#define QUIRE_CONVERT_QUANTIZED_SOURCE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "convert/tensor_source.h"

namespace quire {

struct UnpackedSource {
  // The checkpoint with one tensor X.weight [out, in] for the parts of each packed layer X. As
  // blocks its type is q4_0 where every zero point is 8, and q4_1 otherwise: the same codes and
  // scales, and minimums rounded to f16. Else, and where there is an obstacle, it is float32, the
  // dequantized numbers.
  std::unique_ptr<TensorSource> source;
  bool unpacked = false;  // false: nothing was packed, `source` is what was given
  // Why the first layer that cannot be blocks cannot; names it. Empty: all can.
  std::string obstacle;
};

// Looks for "quantization_config" in config_file, else in config.json in the folder `path` or
// beside the file `path`; else for AutoGPTQ's quantize_config.json there. Reads column orders, and
// as blocks zero points and scales that are not f16; no codes.
// Unimplemented: a method, format or number of bits that is not supported; named, with what is.
// InvalidArgument: parts that are missing or whose shapes do not fit together, named.
absl::StatusOr<UnpackedSource> UnpackQuantized(std::unique_ptr<TensorSource> source,
                                               const std::string& path,
                                               const std::string& config_file, bool as_blocks);

}  // namespace quire

#endif  // QUIRE_CONVERT_QUANTIZED_SOURCE_H_
