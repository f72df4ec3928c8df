// Encoding by what a calibration file says of a matrix's inputs.
#ifndef QUIRE_QUANTIZE_CALIBRATED_ENCODER_H_
#define QUIRE_QUANTIZE_CALIBRATED_ENCODER_H_

#include <string>

#include "absl/status/statusor.h"
#include "format/manifest.pb.h"
#include "quantize/encode_tensor.h"

namespace quire {

// What encodes a model's tensors, in any order; those that multiply the same input are best taken
// together. Matrices of the layers in an encoding with scales: with error feedback where the file
// has second moments (ResourceExhausted, with how much it takes, where these exceed the sink's
// budget), else by columns' importance. Other tensors plainly; all of them where `calibration` is
// empty. Not thread-safe. Errors: what CalibrationFile::Open and CheckFits return.
absl::StatusOr<EncodeNamed> OpenEncoder(const std::string& calibration,
                                        const pb::ModelConfig& config);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_CALIBRATED_ENCODER_H_
