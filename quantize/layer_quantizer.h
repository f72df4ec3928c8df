// Quantizing a model's layers one after another with error feedback, each for the inputs that the
// quantized ones before it give.
#ifndef QUIRE_QUANTIZE_LAYER_QUANTIZER_H_
#define QUIRE_QUANTIZE_LAYER_QUANTIZER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "format/manifest.pb.h"
#include "format/thread_pool.h"
#include "quantize/encode.h"
#include "quantize/error_feedback.h"
#include "quantize/hessian.h"
#include "quantize/layer_inputs.h"
#include "quantize/work_file.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "runtime/transformer.h"

namespace quire {

// Not thread-safe; uses the pool's threads by itself. Results do not depend on how many they are.
class LayerQuantizer {
 public:
  // The file of unfinished work that this takes. `plan` is of the tensors of the session's model,
  // in other encodings; `tokens` are sequences of the session's ctx, one after another.
  static WorkFile::Shape WorkShape(const Session& session, const pb::Manifest& plan,
                                   absl::Span<const int32_t> tokens);

  // All arguments must outlive it, `work` being of that shape; nothing else uses the session's
  // transformer meanwhile. Memory beside the work file's stays under memory_budget bytes:
  // ResourceExhausted, with how much it takes, where that is too little.
  static absl::StatusOr<std::unique_ptr<LayerQuantizer>> Create(Session& session,
                                                                const pb::Manifest& plan,
                                                                absl::Span<const int32_t> tokens,
                                                                WorkFile& work,
                                                                int64_t memory_budget);

  // Quantizes layer work.layers_done(). `progress` hears what part of it is done, 0 to 1.
  // FailedPrecondition where weights or their inputs are not finite; what WorkFile returns.
  absl::Status QuantizeLayer(absl::FunctionRef<void(double part)> progress);

  // A tensor that is quantized here: a matrix of a layer that gets an encoding with scales and does
  // not have it already.
  struct Place {
    int tensor;     // in the plan
    int layer;      // done once work.layers_done() is beyond it
    size_t matrix;  // of kLayerMatrices
  };
  // Null for any other tensor.
  const Place* Find(absl::string_view name) const;
  // What is stored of a place whose layer is done.
  absl::Span<const uint8_t> Bytes(const Place& place) const;
  EncodingError Error(const Place& place) const { return work_.errors(place.layer)[place.matrix]; }

 private:
  LayerQuantizer(Session& session, const pb::Manifest& plan, absl::Span<const int32_t> tokens,
                 WorkFile& work, int64_t memory_budget)
      : model_(session.model()),
        transformer_(session.transformer()),
        pool_(session.pool()),
        plan_(plan),
        inputs_(session, tokens),
        n_states_(tokens.size() * session.model().config().hidden_dim()),
        used_bytes_(session.transformer().scratch_bytes() +
                    static_cast<int64_t>(tokens.size() * sizeof(int32_t))),
        work_(work),
        memory_budget_(memory_budget) {}
  absl::Status CheckBudget() const;
  SymmetricMatrix Collect(const Layer& layer, Transformer::LayerInput input);
  absl::Status QuantizeMatrix(const Place& place, const ErrorFeedback& feedback, Matrix* matrix,
                              EncodingError* error);

  const Model& model_;
  const Transformer& transformer_;
  ThreadPool& pool_;
  const pb::Manifest& plan_;
  LayerInputs inputs_;
  const int64_t n_states_;
  const int64_t used_bytes_;  // all the time
  WorkFile& work_;
  const int64_t memory_budget_;
  int64_t first_offset_ = 0;  // in the plan's file, of what work_.encoded() holds
  absl::flat_hash_map<std::string, Place> places_;
};

}  // namespace quire

#endif  // QUIRE_QUANTIZE_LAYER_QUANTIZER_H_
