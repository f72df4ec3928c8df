#include "quantize/calibrated_encoder.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "quantize/calibration_file.h"
#include "quantize/error_feedback.h"
#include "quantize/memory_budget.h"
#include "quantize/scheme.h"

namespace quire {
namespace {

// The place of a role's input in a calibration file; -1 of what is no matrix of a layer.
int InputOf(TensorRole role) {
  switch (role) {
    case TensorRole::kWq:
    case TensorRole::kWk:
    case TensorRole::kWv:
      return 0;
    case TensorRole::kWo:
      return 1;
    case TensorRole::kGate:
    case TensorRole::kUp:
      return 2;
    case TensorRole::kDown:
      return 3;
    default:
      return -1;
  }
}

class CalibratedEncoder {
 public:
  explicit CalibratedEncoder(CalibrationFile file) : file_(std::move(file)) {}

  absl::StatusOr<EncodingError> Encode(absl::string_view name, const Geometry& geometry,
                                       const int8_t* codebook, ReadRows read,
                                       const TensorSink& sink);

 private:
  absl::Status Load(int layer, int input, ThreadPool& pool);

  CalibrationFile file_;
  // Of the input that was needed last.
  int layer_ = -1, input_ = -1;
  std::vector<float> weights_;
  std::optional<ErrorFeedback> feedback_;
};

absl::Status CalibratedEncoder::Load(int layer, int input, ThreadPool& pool) {
  if (layer == layer_ && input == input_) return absl::OkStatus();
  layer_ = -1;
  feedback_.reset();
  SymmetricMatrix moments(0);
  absl::Status status =
      file_.Read(layer, input, &weights_, file_.header().has_moments ? &moments : nullptr);
  if (!status.ok()) return status;
  if (file_.header().has_moments) {
    feedback_ = MakeErrorFeedback(std::move(moments), pool);
    if (!feedback_.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(file_.path(), ": input ", input, " of layer ",
                                                     layer, ": its moments are too large"));
    }
  } else {
    weights_ = ScaleWeights(weights_);
  }
  layer_ = layer;
  input_ = input;
  return absl::OkStatus();
}

absl::StatusOr<EncodingError> CalibratedEncoder::Encode(absl::string_view name,
                                                        const Geometry& geometry,
                                                        const int8_t* codebook, ReadRows read,
                                                        const TensorSink& sink) {
  const absl::StatusOr<TensorName> parsed = ParseTensorName(name);
  if (!parsed.ok()) return parsed.status();
  const int input = InputOf(parsed->role);
  if (input < 0 || Info(geometry.encoding).scale_bytes == 0) {
    return EncodeTensor(geometry, codebook, nullptr, read, sink);
  }
  const int64_t moments_bytes =
      file_.header().has_moments ? SymmetricMatrix::Bytes(geometry.cols) : 0;
  if (file_.header().has_moments) {
    // Before so many are read.
    if (absl::Status status = CheckMemoryBudget(
            absl::StrCat("encoding with second moments of ", geometry.cols, " columns"),
            moments_bytes + LeastFeedbackBytes(geometry), sink.memory_budget);
        !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = Load(parsed->layer, input, sink.pool); !status.ok()) return status;
  if (!feedback_.has_value()) {
    return EncodeTensor(geometry, codebook, weights_.data(), read, sink);
  }
  return EncodeTensorWithFeedback(geometry, codebook, *feedback_, read,
                                  {sink.pool, sink.append, sink.memory_budget, moments_bytes});
}

}  // namespace

absl::StatusOr<EncodeNamed> OpenEncoder(const std::string& calibration,
                                        const pb::ModelConfig& config) {
  if (calibration.empty()) return EncodeNamed(EncodePlainly);
  absl::StatusOr<CalibrationFile> file = CalibrationFile::Open(calibration);
  if (!file.ok()) return file.status();
  if (absl::Status status = file->CheckFits(config); !status.ok()) return status;
  const auto encoder = std::make_shared<CalibratedEncoder>(*std::move(file));
  return EncodeNamed([encoder](auto... args) { return encoder->Encode(args...); });
}

}  // namespace quire
