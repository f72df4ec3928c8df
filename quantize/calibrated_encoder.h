// Encoding by what a calibration file says of a matrix's inputs.
#ifndef QUIRE_QUANTIZE_CALIBRATED_ENCODER_H_
#define QUIRE_QUANTIZE_CALIBRATED_ENCODER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "format/manifest.pb.h"
#include "quantize/calibration_file.h"
#include "quantize/encode_tensor.h"
#include "quantize/error_feedback.h"

namespace quire {

// For the tensors of a model in any order; those that multiply the same input are best taken
// together. Not thread-safe.
class CalibratedEncoder {
 public:
  // What CalibrationFile::Open and CheckFits return.
  static absl::StatusOr<CalibratedEncoder> Open(const std::string& path,
                                                const pb::ModelConfig& config);

  // Matrices of the layers in an encoding with scales: with error feedback where the file has
  // second moments (ResourceExhausted, with how much it takes, where these exceed the sink's
  // budget), else by columns' importance. Other tensors plainly.
  absl::StatusOr<EncodingError> Encode(absl::string_view name, const Geometry& geometry,
                                       const int8_t* codebook, ReadRows read,
                                       const TensorSink& sink);

 private:
  explicit CalibratedEncoder(CalibrationFile file) : file_(std::move(file)) {}
  absl::Status Load(int layer, int input, ThreadPool& pool);

  CalibrationFile file_;
  // Of the input that was needed last.
  int layer_ = -1, input_ = -1;
  std::vector<float> weights_;
  std::optional<ErrorFeedback> feedback_;
};

}  // namespace quire

#endif  // QUIRE_QUANTIZE_CALIBRATED_ENCODER_H_
