#include "quantize/calibrated_file.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "quantize/layer_quantizer.h"
#include "quantize/work_file.h"

namespace quire {

absl::StatusOr<std::vector<QuantizedTensor>> QuantizeFileCalibrated(
    Session& session, const pb::Manifest& plan, absl::Span<const int32_t> tokens,
    const CalibratedFileOptions& options, absl::FunctionRef<void(double part)> progress) {
  const int n_layers = static_cast<int>(plan.config().n_layers());
  std::unique_ptr<WorkFile> work;
  std::unique_ptr<LayerQuantizer> layers;
  const auto tell = [&](double part) {
    progress((static_cast<double>(work->layers_done()) + part) / n_layers);
  };
  // Opened when the output has its room on the disk.
  const auto open = [&] {
    absl::StatusOr<std::unique_ptr<WorkFile>> file =
        WorkFile::Open(absl::StrCat(options.path, ".unfinished"),
                       LayerQuantizer::WorkShape(session, plan, tokens), options.overwrite);
    if (!file.ok()) return file.status();
    work = *std::move(file);
    absl::StatusOr<std::unique_ptr<LayerQuantizer>> quantizer =
        LayerQuantizer::Create(session, plan, tokens, *work, options.memory_budget);
    if (!quantizer.ok()) return quantizer.status();
    layers = *std::move(quantizer);
    tell(0);
    return absl::OkStatus();
  };
  // What is not of the one tensor that QuantizeFile would name.
  absl::Status failed;
  const auto encode = [&](absl::string_view name, const Geometry& geometry, const int8_t* codebook,
                          ReadRows read, const TensorSink& sink) -> absl::StatusOr<EncodingError> {
    if (layers == nullptr) {
      if (failed = open(); !failed.ok()) return failed;
    }
    const LayerQuantizer::Place* place = layers->Find(name);
    if (place == nullptr) return EncodePlainly(name, geometry, codebook, read, sink);
    while (work->layers_done() <= place->layer) {
      if (failed = layers->QuantizeLayer(tell); !failed.ok()) return failed;
    }
    if (absl::Status status = sink.append(layers->Bytes(*place)); !status.ok()) return status;
    return layers->Error(*place);
  };
  absl::StatusOr<std::vector<QuantizedTensor>> result = QuantizeFile(
      session.model().file(), plan, options.path, options.overwrite, options.memory_budget,
      session.pool(), [](int64_t) {}, encode);
  if (work != nullptr && result.ok()) {
    if (absl::Status status = work->Remove(); !status.ok()) return status;
  }
  if (!failed.ok()) return failed;
  return result;
}

}  // namespace quire
