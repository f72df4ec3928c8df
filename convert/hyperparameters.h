// What a checkpoint says about its model beside the tensors.
#ifndef QUIRE_CONVERT_HYPERPARAMETERS_H_
#define QUIRE_CONVERT_HYPERPARAMETERS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "convert/tensor_source.h"
#include "format/manifest.pb.h"

namespace quire {

struct Hyperparameters {
  // ffn_dim or vocab_size 0: not said, the tensors' shapes tell. tied_embeddings: the output matrix
  // may be absent because it is the embedding.
  pb::ModelConfig config;
  // Whether wq, wk and wv come with biases.
  enum class Biases { kNone, kRequired, kWherePresent } biases = Biases::kNone;
  // The rows of wq and wk are interleaved in GGUF files of this architecture.
  bool gguf_interleaved = false;
  // Of weights that are codes beside scales ("quantization_config"): which kind; empty: plain.
  std::string quantization;
  std::string place;  // for messages: "model/config.json", "'model_args' in stories.pt"
};

// What is supported, for messages.
extern const char kSupportedArchitectures[];

// One function a dialect. Unimplemented, by name, for an architecture or a setting that changes
// what the model computes and is not supported; InvalidArgument where values are malformed, out of
// range or contradictory. `text` is JSON, `place` where it comes from.
absl::StatusOr<Hyperparameters> ParseHuggingFaceConfig(absl::string_view text,
                                                       const std::string& place);
absl::StatusOr<Hyperparameters> ParseMetaParams(absl::string_view text, const std::string& place);
absl::StatusOr<Hyperparameters> ParseGgufMetadata(const TensorSource& source);

// As read, before any check.
struct Dimensions {
  int64_t n_layers, n_heads, n_kv_heads;
  int64_t head_dim;  // 0: hidden_dim / n_heads
  int64_t hidden_dim;
  int64_t ffn_dim, vocab_size;  // 0: not said; vocab_size -1 too
  int64_t context_tokens;
  int64_t sliding_window;
};
// Sets the dimensions, and checks ranges and relations that hold for every architecture, also of
// what else `config` holds. InvalidArgument.
absl::Status SetDimensions(const Dimensions& dimensions, const std::string& place,
                           pb::ModelConfig& config);

// ParseHuggingFaceConfig or ParseMetaParams, by the keys that are there.
absl::StatusOr<Hyperparameters> ParseConfig(absl::string_view text, const std::string& place);

// Looks, in this order, in: the file `config_file`, if not empty; what lies inside the checkpoint;
// config.json or params.json (the other way round where `meta_first`) in the folder `path`, or
// beside the file `path`. NotFound where there is nothing.
absl::StatusOr<Hyperparameters> FindHyperparameters(const TensorSource& source,
                                                    const std::string& path,
                                                    const std::string& config_file,
                                                    bool meta_first);

// The scaling that a GGUF file's tensor "rope_freqs.weight" stands for: the divisors of the
// head_dim / 2 rotary frequencies. Unimplemented where it is not Llama 3.1's kind.
absl::StatusOr<pb::RopeScaling> RopeScalingOfFactors(absl::Span<const float> factors,
                                                     double rope_theta);

}  // namespace quire

#endif  // QUIRE_CONVERT_HYPERPARAMETERS_H_
