// The table of architectures: which tensor of a checkpoint is which tensor of a model.
#ifndef QUIRE_CONVERT_ARCHITECTURE_H_
#define QUIRE_CONVERT_ARCHITECTURE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "convert/tensor_source.h"
#include "format/manifest.pb.h"

namespace quire {

// How a checkpoint names its tensors. The names decide the order of the rotary rows too.
enum class Naming {
  kHuggingFace,  // model.layers.0.self_attn.q_proj.weight; rotate-half
  kMeta,         // layers.0.attention.wq.weight (Meta, llama2.c, Mistral); interleaved pairs
  kGguf,         // blk.0.attn_q.weight; interleaved where general.architecture is "llama"
};

// A dimension of a tensor, in terms of the configuration.
enum class Dim { kNone, kVocab, kHidden, kQuery, kKeyValue, kFfn };

// Along which dimension Meta's tensor-parallel shards of a tensor are joined.
enum class JoinAxis { kRows, kColumns, kReplicated, kEmbedding };

// A row of the table. "*" stands for the layer's number.
struct TensorNames {
  const char* canonical;
  const char* hugging_face;
  const char* meta;
  const char* gguf;
  Dim rows, cols;  // cols kNone: a vector
  JoinAxis join;
};
// In file order: embedding, the tensors of a layer, norm, output.
absl::Span<const TensorNames> TensorNameTable();

// A name of the table in a layer: its number in place of "*".
std::string OfLayer(const char* name, int64_t layer);
// The size of a dimension; 0 of kNone.
int64_t DimSize(const pb::ModelConfig& config, Dim dim);
// Heads whose rows rotary embedding pairs: of wq, bq, wk and bk, by canonical name; 0 of others.
int RotaryHeads(const pb::ModelConfig& config, absl::string_view canonical);

// Where to look for hyperparameters and tensors.
struct CheckpointConfig {
  // The file or folder that the source was opened from. config.json or params.json is looked for in
  // the folder, or beside the file.
  std::string path;
  // A config.json or params.json to use before all else (--config); empty: none.
  std::string config_file;
  // Only tensors under this dotted path (--root); empty: found by the embedding's name.
  std::string root;
  // The source has done what the configuration says of packed weights (quantized_source.h).
  bool unpacked = false;
};

struct CanonicalTensor {
  std::string name;  // see quantize/scheme.h
  int source;        // index in TensorSource::tensors()
  std::vector<int64_t> shape;
  // > 0: the rows of each of so many heads are in interleaved rotary order (pairs 2i, 2i + 1) and
  // are to be stored in rotate-half order (pairs i, i + head_dim / 2).
  int interleaved_heads = 0;
};

// The row of the checkpoint's tensor that becomes row `row` of the canonical one.
inline int64_t SourceRow(const CanonicalTensor& tensor, int64_t row) {
  if (tensor.interleaved_heads == 0) return row;
  const int64_t head_dim = tensor.shape[0] / tensor.interleaved_heads;
  const int64_t in_head = row % head_dim;
  return row - in_head + (in_head < head_dim / 2 ? 2 * in_head : 2 * (in_head - head_dim / 2) + 1);
}

struct ModelPlan {
  pb::ModelConfig config;
  std::vector<CanonicalTensor> tensors;                       // in file order
  std::vector<std::pair<std::string, std::string>> left_out;  // (checkpoint's name, why)
};

// Finds the hyperparameters (config_file; what the checkpoint itself carries; config.json or
// params.json at `path`), then every tensor that they ask for, with shapes checked.
// Unimplemented: another architecture, or a setting that the runtime does not compute; named, with
// what is supported. NotFound: no hyperparameters, or tensors that are missing. InvalidArgument:
// malformed or contradictory. Reads no weights, but the tensors of rope factors (GGUF), and the
// output matrix as far as it equals the embedding.
absl::StatusOr<ModelPlan> PlanModel(const TensorSource& source, const CheckpointConfig& config);

}  // namespace quire

#endif  // QUIRE_CONVERT_ARCHITECTURE_H_
