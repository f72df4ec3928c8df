// Quantizing a file with calibration: the model itself shows, on a text, what its matrices
// multiply.
#ifndef QUIRE_QUANTIZE_CALIBRATED_FILE_H_
#define QUIRE_QUANTIZE_CALIBRATED_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/manifest.pb.h"
#include "quantize/quantize_file.h"
#include "runtime/session.h"

namespace quire {

struct CalibratedFileOptions {
  std::string path;
  bool overwrite = false;
  int64_t memory_budget = 0;
};

// QuantizeFile with the layers' matrices encoded by a LayerQuantizer on these tokens. Unfinished
// work is kept in the file path.unfinished (the layers that are done, and hidden states: 8 bytes x
// hidden_dim for each token) and taken up again by a call with the same arguments; it is deleted
// with success. The bytes written are the same either way. `progress` hears what part is done, 0 to
// 1, the first time what part was done already.
absl::StatusOr<std::vector<QuantizedTensor>> QuantizeFileCalibrated(
    Session& session, const pb::Manifest& plan, absl::Span<const int32_t> tokens,
    const CalibratedFileOptions& options, absl::FunctionRef<void(double part)> progress);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_CALIBRATED_FILE_H_
