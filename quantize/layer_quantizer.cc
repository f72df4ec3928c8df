#include "quantize/layer_quantizer.h"

#include <xxhash.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "format/manifest_check.h"
#include "quantize/encode_tensor.h"
#include "quantize/error_feedback.h"
#include "quantize/memory_budget.h"
#include "quantize/stored_rows.h"

namespace quire {
namespace {

using LayerInput = Transformer::LayerInput;

// Matrices that multiply the same input.
struct Stage {
  LayerInput input;
  int begin, end;  // in kLayerMatrices
};
constexpr Stage kStages[] = {{LayerInput::kQkv, 0, 3},
                             {LayerInput::kWo, 3, 4},
                             {LayerInput::kGateUp, 4, 6},
                             {LayerInput::kDown, 6, 7}};

std::string NameOf(int64_t layer, size_t matrix) {
  return absl::StrCat("layers.", layer, ".", kLayerMatrixNames[matrix]);
}

bool GoOn(LayerInput, const float*, int64_t, int64_t) { return true; }

// The part of a plan's file that holds the layers.
struct Extent {
  int64_t begin = INT64_MAX, end = 0;
  void Add(const pb::TensorEntry& entry) {
    begin = std::min<int64_t>(begin, entry.offset());
    end = std::max<int64_t>(end, entry.offset() + entry.bytes());
  }
};
Extent LayersOf(const pb::Manifest& plan) {
  Extent extent;
  for (const pb::TensorEntry& entry : plan.tensors()) {
    if (entry.name().rfind("layers.", 0) == 0) extent.Add(entry);
  }
  return extent;
}

}  // namespace

WorkFile::Shape LayerQuantizer::WorkShape(const Session& session, const pb::Manifest& plan,
                                          absl::Span<const int32_t> tokens) {
  // Changes whenever the same input would give other bytes.
  constexpr uint64_t kAlgorithm = 1;
  const ModelFile& source = session.model().file();
  const Extent layers = LayersOf(plan);
  std::string everything = absl::StrCat(session.transformer().ctx(), " ");
  source.manifest().AppendToString(&everything);  // with the checksums of all weights
  plan.AppendToString(&everything);
  WorkFile::Shape shape;
  shape.fingerprint =
      XXH3_64bits_withSeed(tokens.data(), tokens.size() * sizeof(int32_t),
                           XXH3_64bits_withSeed(everything.data(), everything.size(), kAlgorithm));
  shape.layers = source.config().n_layers();
  shape.state_floats = static_cast<int64_t>(tokens.size()) * source.config().hidden_dim();
  shape.encoded_bytes = layers.end - layers.begin;
  return shape;
}

absl::StatusOr<std::unique_ptr<LayerQuantizer>> LayerQuantizer::Create(
    Session& session, const pb::Manifest& plan, absl::Span<const int32_t> tokens, WorkFile& work,
    int64_t memory_budget) {
  std::unique_ptr<LayerQuantizer> self(
      new LayerQuantizer(session, plan, tokens, work, memory_budget));
  self->first_offset_ = LayersOf(plan).begin;
  const ModelFile& source = session.model().file();
  absl::flat_hash_map<absl::string_view, int> indexes;
  for (int i = 0; i < plan.tensors_size(); ++i) indexes.emplace(plan.tensors(i).name(), i);
  for (int layer = 0; layer < static_cast<int>(source.config().n_layers()); ++layer) {
    for (size_t matrix = 0; matrix < kLayerMatrices.size(); ++matrix) {
      const std::string name = NameOf(layer, matrix);
      const int tensor = indexes.at(name);
      const Encoding to = static_cast<Encoding>(plan.tensors(tensor).encoding());
      if (Info(to).scale_bytes == 0 || source.Find(name)->geometry.encoding == to) continue;
      self->places_.emplace(name, Place{tensor, layer, matrix});
    }
  }
  if (absl::Status status = self->CheckBudget(); !status.ok()) return status;
  if (work.layers_done() == 0) self->inputs_.Embed(work.states());
  return self;
}

absl::Status LayerQuantizer::CheckBudget() const {
  int64_t cols = 0, encoding_bytes = 0;
  for (Matrix Layer::* m : kLayerMatrices) {
    cols = std::max(cols, (model_.layers()[0].*m).geometry.cols);
  }
  for (const auto& [name, place] : places_) {
    encoding_bytes =
        std::max(encoding_bytes, LeastFeedbackBytes(GeometryOf(plan_.tensors(place.tensor))));
  }
  // The second moments; beside them a batch of inputs, twice, then what encodes some rows.
  const int64_t batch_bytes =
      2 * Transformer::kBatchTokens * cols * static_cast<int64_t>(sizeof(float));
  const int64_t needed =
      used_bytes_ + SymmetricMatrix::Bytes(cols) + std::max(batch_bytes, encoding_bytes);
  return CheckMemoryBudget(absl::StrCat("calibrating with ", cols, " columns"), needed,
                           memory_budget_);
}

// Second moments of a stage's input, every stage before it finished. The attention block's states
// become those behind it where the feed-forward block's turn begins.
SymmetricMatrix LayerQuantizer::Collect(const Layer& layer, Transformer::LayerInput input) {
  int64_t cols = 0;
  for (const Stage& stage : kStages) {
    if (stage.input == input) cols = (layer.*kLayerMatrices[stage.begin]).geometry.cols;
  }
  SymmetricMatrix moments(cols);
  const auto observe = [&](LayerInput seen, const float* x, int64_t stride, int64_t n) {
    if (seen != input) return true;
    moments.AddOuterProducts(x, stride, n, pool_);
    return false;
  };
  if (input == LayerInput::kQkv || input == LayerInput::kWo) {
    inputs_.RunAttention(layer, work_.next_states(), observe);
  } else {
    inputs_.RunFeedForward(layer, work_.next_states(), observe);
  }
  return moments;
}

absl::Status LayerQuantizer::QuantizeMatrix(const Place& place, const ErrorFeedback& feedback,
                                            Matrix* matrix, EncodingError* error) {
  const pb::TensorEntry& entry = plan_.tensors(place.tensor);
  const TensorView& tensor = *model_.file().Find(entry.name());
  const Geometry geometry = GeometryOf(entry);
  const int8_t* codebook = CodebookOf(plan_, entry);
  uint8_t* const begin = work_.encoded() + (entry.offset() - first_offset_);
  uint8_t* end = begin;
  const TensorSink sink{pool_,
                        [&](absl::Span<const uint8_t> bytes) {
                          end = std::copy(bytes.begin(), bytes.end(), end);
                          return absl::OkStatus();
                        },
                        memory_budget_, used_bytes_ + SymmetricMatrix::Bytes(geometry.cols)};
  const absl::StatusOr<EncodingError> result = EncodeTensorWithFeedback(
      geometry, codebook, feedback,
      [&](int64_t first_row, int64_t n_rows, float* out) {
        DecodeRows(tensor, first_row, n_rows, out);
        return absl::OkStatus();
      },
      sink);
  if (!result.ok()) {
    return absl::Status(result.status().code(),
                        absl::StrCat(model_.file().path(), ": tensor \"", entry.name(),
                                     "\": ", result.status().message()));
  }
  *error = *result;
  *matrix = {geometry, codebook, begin};
  return absl::OkStatus();
}

absl::Status LayerQuantizer::QuantizeLayer(absl::FunctionRef<void(double part)> progress) {
  const int64_t l = work_.layers_done();
  // Before anything of the layer is kept: the work file's own sums would cover up damage.
  for (const TensorView& tensor : model_.file().tensors()) {
    if (!absl::StartsWith(tensor.name, absl::StrCat("layers.", l, "."))) continue;
    if (absl::Status status = CheckSum(tensor); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat(model_.file().path(), ": tensor \"",
                                                      tensor.name, "\": ", status.message()));
    }
  }
  const Place* places[kLayerMatrices.size()];
  for (size_t m = 0; m < kLayerMatrices.size(); ++m) places[m] = Find(NameOf(l, m));
  Layer layer = model_.layers()[l];
  EncodingError errors[kLayerMatrices.size()];
  std::copy_n(work_.states(), n_states_, work_.next_states());
  double done = 0;
  for (const Stage& stage : kStages) {
    if (stage.input == LayerInput::kGateUp) {  // the attention block is finished
      inputs_.RunAttention(layer, work_.next_states(), GoOn);
    }
    if (std::any_of(places + stage.begin, places + stage.end, [](const Place* p) { return p; })) {
      std::optional<ErrorFeedback> feedback = MakeErrorFeedback(Collect(layer, stage.input), pool_);
      if (!feedback.has_value()) {
        return absl::FailedPreconditionError(
            absl::StrCat(model_.file().path(), ": the inputs of ", NameOf(l, stage.begin),
                         " are not finite: the model cannot be calibrated"));
      }
      for (int m = stage.begin; m < stage.end; ++m) {
        if (places[m] == nullptr) continue;
        absl::Status status =
            QuantizeMatrix(*places[m], *feedback, &(layer.*kLayerMatrices[m]), &errors[m]);
        if (!status.ok()) return status;
      }
    }
    progress(done += 0.25);
  }
  inputs_.RunFeedForward(layer, work_.next_states(), GoOn);
  if (absl::Status status = model_.file().mapping().CheckUnchanged(); !status.ok()) return status;
  Extent extent;
  for (const pb::TensorEntry& entry : plan_.tensors()) {
    if (entry.name().rfind(absl::StrCat("layers.", l, "."), 0) == 0) extent.Add(entry);
  }
  return work_.FinishLayer(extent.begin - first_offset_, extent.end - extent.begin, errors);
}

const LayerQuantizer::Place* LayerQuantizer::Find(absl::string_view name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &found->second;
}

absl::Span<const uint8_t> LayerQuantizer::Bytes(const Place& place) const {
  const pb::TensorEntry& entry = plan_.tensors(place.tensor);
  return {work_.encoded() + (entry.offset() - first_offset_), entry.bytes()};
}

}  // namespace quire
