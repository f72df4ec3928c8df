#include "convert/architecture.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "convert/hyperparameters.h"
#include "convert/quote.h"

namespace quire {
namespace {

// clang-format off
constexpr TensorNames kTable[] = {
    {"embedding", "model.embed_tokens.weight", "tok_embeddings.weight", "token_embd.weight",
     Dim::kVocab, Dim::kHidden, JoinAxis::kEmbedding},
    {"layers.*.attn_norm", "model.layers.*.input_layernorm.weight",
     "layers.*.attention_norm.weight", "blk.*.attn_norm.weight",
     Dim::kHidden, Dim::kNone, JoinAxis::kReplicated},
    {"layers.*.wq", "model.layers.*.self_attn.q_proj.weight",
     "layers.*.attention.wq.weight", "blk.*.attn_q.weight",
     Dim::kQuery, Dim::kHidden, JoinAxis::kRows},
    {"layers.*.wk", "model.layers.*.self_attn.k_proj.weight",
     "layers.*.attention.wk.weight", "blk.*.attn_k.weight",
     Dim::kKeyValue, Dim::kHidden, JoinAxis::kRows},
    {"layers.*.wv", "model.layers.*.self_attn.v_proj.weight",
     "layers.*.attention.wv.weight", "blk.*.attn_v.weight",
     Dim::kKeyValue, Dim::kHidden, JoinAxis::kRows},
    {"layers.*.bq", "model.layers.*.self_attn.q_proj.bias",
     "layers.*.attention.wq.bias", "blk.*.attn_q.bias",
     Dim::kQuery, Dim::kNone, JoinAxis::kRows},
    {"layers.*.bk", "model.layers.*.self_attn.k_proj.bias",
     "layers.*.attention.wk.bias", "blk.*.attn_k.bias",
     Dim::kKeyValue, Dim::kNone, JoinAxis::kRows},
    {"layers.*.bv", "model.layers.*.self_attn.v_proj.bias",
     "layers.*.attention.wv.bias", "blk.*.attn_v.bias",
     Dim::kKeyValue, Dim::kNone, JoinAxis::kRows},
    {"layers.*.wo", "model.layers.*.self_attn.o_proj.weight",
     "layers.*.attention.wo.weight", "blk.*.attn_output.weight",
     Dim::kHidden, Dim::kQuery, JoinAxis::kColumns},
    {"layers.*.ffn_norm", "model.layers.*.post_attention_layernorm.weight",
     "layers.*.ffn_norm.weight", "blk.*.ffn_norm.weight",
     Dim::kHidden, Dim::kNone, JoinAxis::kReplicated},
    {"layers.*.w_gate", "model.layers.*.mlp.gate_proj.weight",
     "layers.*.feed_forward.w1.weight", "blk.*.ffn_gate.weight",
     Dim::kFfn, Dim::kHidden, JoinAxis::kRows},
    {"layers.*.w_up", "model.layers.*.mlp.up_proj.weight",
     "layers.*.feed_forward.w3.weight", "blk.*.ffn_up.weight",
     Dim::kFfn, Dim::kHidden, JoinAxis::kRows},
    {"layers.*.w_down", "model.layers.*.mlp.down_proj.weight",
     "layers.*.feed_forward.w2.weight", "blk.*.ffn_down.weight",
     Dim::kHidden, Dim::kFfn, JoinAxis::kColumns},
    {"norm", "model.norm.weight", "norm.weight", "output_norm.weight",
     Dim::kHidden, Dim::kNone, JoinAxis::kReplicated},
    {"output", "lm_head.weight", "output.weight", "output.weight",
     Dim::kVocab, Dim::kHidden, JoinAxis::kRows},
};

constexpr const TensorNames& kEmbedding = kTable[0];
constexpr const TensorNames& kNorm = kTable[std::size(kTable) - 2];
constexpr const TensorNames& kOutput = kTable[std::size(kTable) - 1];

// Tensors that hold nothing that is not known otherwise; by the end of their name.
struct Redundant {
  const char* suffix;
  const char* why;
};
constexpr Redundant kRedundant[] = {
    {"rotary_emb.inv_freq", "rotary frequencies, known from the configuration"},
    {"rope.freqs", "rotary frequencies, known from the configuration"},
    {"rope_freqs.weight", "rotary factors, kept as rope scaling"},
    {"freqs_cos", "rotary angles, known from the configuration"},
    {"freqs_sin", "rotary angles, known from the configuration"},
    {"attention.mask", "the causal mask"},
};
// clang-format on

// Modules that wrap another without a computation of their own: torch.compile, (distributed) data
// parallel, activation checkpointing.
constexpr absl::string_view kWrappers[] = {"_orig_mod", "module", "_fsdp_wrapped_module",
                                           "_checkpoint_wrapped_module"};

constexpr size_t kNamesInMessages = 4;

const char* NameIn(const TensorNames& row, Naming naming) {
  return naming == Naming::kHuggingFace ? row.hugging_face
         : naming == Naming::kMeta      ? row.meta
                                        : row.gguf;
}

std::string WithoutWrappers(absl::string_view name) {
  std::vector<absl::string_view> steps = absl::StrSplit(name, '.');
  steps.erase(
      std::remove_if(steps.begin(), steps.end(),
                     [](absl::string_view step) { return absl::c_linear_search(kWrappers, step); }),
      steps.end());
  return absl::StrJoin(steps, ".");
}

bool IsTrainingState(absl::string_view name) {
  const absl::string_view top = name.substr(0, name.find('.'));
  return absl::StrContains(top, "optim") || absl::StrContains(top, "sched") ||
         absl::StrContains(top, "scaler") || absl::StrContains(name, ".exp_avg");
}

// "'a', 'b' and 7 more".
std::string SomeOf(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (size_t i = 0; i < std::min(names.size(), kNamesInMessages); ++i) {
    quoted.push_back(Quote(names[i]));
  }
  std::string text = absl::StrJoin(quoted, ", ");
  if (names.size() > quoted.size()) {
    absl::StrAppend(&text, " and ", names.size() - quoted.size(), " more");
  }
  return text;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Where the model is in the checkpoint.
struct Root {
  Naming naming;
  std::string prefix;  // of names without wrappers; with a final dot
};

// The names of a checkpoint as the table knows them.
struct Names {
  Naming naming;
  std::map<std::string, int> index;  // name under the root -> index in the source
};

absl::StatusOr<Root> FindRoot(const std::vector<std::string>& names,
                              const CheckpointConfig& where) {
  std::string below = where.root.empty() ? "" : WithoutWrappers(where.root);
  if (!below.empty() && !absl::EndsWith(below, ".")) below += '.';
  std::map<std::string, Naming> roots;
  for (const std::string& name : names) {
    for (Naming naming : {Naming::kHuggingFace, Naming::kMeta, Naming::kGguf}) {
      absl::string_view prefix = name;
      if (absl::ConsumeSuffix(&prefix, NameIn(kEmbedding, naming)) &&
          (prefix.empty() || prefix.back() == '.') && absl::StartsWith(prefix, below)) {
        roots.emplace(std::string(prefix), naming);
      }
    }
  }
  if (roots.size() > 1) {
    std::vector<std::string> found;
    for (const auto& [prefix, naming] : roots) {
      found.emplace_back(prefix.empty() ? "(top)" : absl::StripSuffix(prefix, "."));
    }
    return absl::InvalidArgumentError(absl::StrCat(where.path, ": holds ", found.size(),
                                                   " models, at ", SomeOf(found),
                                                   "; choose one with --root NAME"));
  }
  if (roots.empty()) {
    return absl::UnimplementedError(absl::StrCat(
        where.path, ": no tensor has the name of a supported model's embedding (",
        kEmbedding.hugging_face, ", ", kEmbedding.meta, " or ", kEmbedding.gguf, ")",
        below.empty() ? "" : absl::StrCat(" under ", Quote(where.root)), "; it holds ",
        names.empty() ? "no tensors" : SomeOf(names), "; supported: ", kSupportedArchitectures));
  }
  return Root{roots.begin()->second, roots.begin()->first};
}

// Whether two tensors hold the same bytes. Reads until they differ.
absl::StatusOr<bool> SameBytes(const TensorSource& source, int a, int b) {
  const SourceTensor& first = source.tensors()[static_cast<size_t>(a)];
  const SourceTensor& second = source.tensors()[static_cast<size_t>(b)];
  if (source.Alias(a) >= 0 && source.Alias(a) == source.Alias(b)) return true;
  if (first.dtype != second.dtype || first.shape != second.shape) return false;
  const DTypeInfo& info = Info(first.dtype);
  constexpr int64_t kChunkBlocks = 1 << 14;
  const int64_t chunk = kChunkBlocks * info.block_elements;
  std::vector<uint8_t> bytes_a, bytes_b;
  for (int64_t begin = 0; begin < first.elements(); begin += chunk) {
    const int64_t count = std::min(chunk, first.elements() - begin);
    const auto bytes = static_cast<size_t>(count / info.block_elements * info.block_bytes);
    bytes_a.resize(bytes);
    bytes_b.resize(bytes);
    absl::Status status = source.Read(a, begin, count, absl::MakeSpan(bytes_a));
    if (status.ok()) status = source.Read(b, begin, count, absl::MakeSpan(bytes_b));
    if (!status.ok()) return status;
    if (bytes_a != bytes_b) return false;
  }
  return true;
}

absl::StatusOr<pb::RopeScaling> ReadRopeFactors(const TensorSource& source, int index,
                                                const pb::ModelConfig& config) {
  const SourceTensor& tensor = source.tensors()[static_cast<size_t>(index)];
  const int64_t wanted = config.head_dim() / 2;
  if (tensor.dtype != DType::kF32 || tensor.shape != std::vector<int64_t>{wanted}) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quote(tensor.name), " is ", Info(tensor.dtype).name, " ",
                     ShapeText(tensor.shape), ", not float32 [", wanted, "]"));
  }
  if (config.rope_scaling().kind() != pb::RopeScaling::NONE) {
    return absl::UnimplementedError(
        absl::StrCat(Quote(tensor.name), " beside another rope scaling is not supported"));
  }
  std::vector<float> factors(static_cast<size_t>(wanted));
  const absl::Status status =
      source.Read(index, 0, wanted,
                  absl::MakeSpan(reinterpret_cast<uint8_t*>(factors.data()), 4 * factors.size()));
  if (!status.ok()) return status;
  return RopeScalingOfFactors(factors, config.rope_theta());
}

// Matches the table with the names, row by row.
class Planner {
 public:
  Planner(const TensorSource& source, Names names, Hyperparameters hyperparameters)
      : source_(source), names_(std::move(names)), hyper_(std::move(hyperparameters)) {}

  absl::StatusOr<ModelPlan> Plan() {
    pb::ModelConfig& config = hyper_.config;
    biases_ = WantsBiases();
    Take(kEmbedding, 0);
    TakeLayers();
    Take(kNorm, 0);
    if (!status_.ok()) return status_;
    if (!missing_.empty()) {
      return absl::NotFoundError(
          absl::StrCat("tensors missing that ", hyper_.place, " asks for: ", SomeOf(missing_)));
    }
    TakeOutput();
    if (!status_.ok()) return status_;
    const auto factors = names_.index.find("rope_freqs.weight");
    if (factors != names_.index.end() && names_.naming == Naming::kGguf) {
      absl::StatusOr<pb::RopeScaling> scaling = ReadRopeFactors(source_, factors->second, config);
      if (!scaling.ok()) return scaling.status();
      if (scaling->kind() != pb::RopeScaling::NONE) *config.mutable_rope_scaling() = *scaling;
    }
    const absl::Status status = JudgeTheRest();
    if (!status.ok()) return status;
    plan_.config = config;
    return std::move(plan_);
  }

 private:
  static bool PerLayer(const TensorNames& row) {
    return std::strchr(row.canonical, '*') != nullptr;
  }
  static bool IsBias(const TensorNames& row) {
    return PerLayer(row) && row.canonical[std::strlen("layers.*.")] == 'b';
  }

  bool WantsBiases() const {
    if (hyper_.biases != Hyperparameters::Biases::kWherePresent) {
      return hyper_.biases == Hyperparameters::Biases::kRequired;
    }
    for (const TensorNames& row : kTable) {
      if (IsBias(row) && names_.index.count(OfLayer(NameIn(row, names_.naming), 0)) > 0)
        return true;
    }
    return false;
  }

  int64_t Size(Dim dim) const { return DimSize(hyper_.config, dim); }

  // Adds the tensor of a row to the plan, or to what is missing. Sets status_ on the first tensor
  // that is there and is not what it should be.
  void Take(const TensorNames& row, int64_t layer) {
    const std::string name = OfLayer(NameIn(row, names_.naming), layer);
    const auto found = names_.index.find(name);
    if (found == names_.index.end()) {
      missing_.push_back(name);
      return;
    }
    const SourceTensor& tensor = source_.tensors()[static_cast<size_t>(found->second)];
    LearnSizes(row, tensor);
    std::vector<int64_t> shape = {Size(row.rows)};
    if (row.cols != Dim::kNone) shape.push_back(Size(row.cols));
    if (tensor.shape != shape) {
      Fail(absl::InvalidArgumentError(absl::StrCat(Quote(tensor.name), " is ",
                                                   ShapeText(tensor.shape), "; ", hyper_.place,
                                                   " asks for ", ShapeText(shape))));
      return;
    }
    if (!IsFloating(tensor.dtype)) {
      Fail(absl::UnimplementedError(absl::StrCat(Quote(tensor.name), " is of type ",
                                                 Info(tensor.dtype).name,
                                                 ", which is not supported for weights")));
      return;
    }
    plan_.tensors.push_back({OfLayer(row.canonical, layer), found->second, std::move(shape),
                             Interleaved() ? RotaryHeads(hyper_.config, row.canonical) : 0});
    taken_.insert(found->second);
  }

  void TakeLayers() {
    for (int64_t layer = 0; layer < hyper_.config.n_layers(); ++layer) {
      for (const TensorNames& row : kTable) {
        if (PerLayer(row) && (biases_ || !IsBias(row))) Take(row, layer);
      }
      if (!status_.ok() || missing_.size() > 100) return;
    }
  }

  // The output matrix is stored unless it is the embedding.
  void TakeOutput() {
    const char* name = NameIn(kOutput, names_.naming);
    const auto found = names_.index.find(name);
    if (found == names_.index.end()) {
      if (!hyper_.config.tied_embeddings()) {
        Fail(absl::NotFoundError(
            absl::StrCat("tensor ", Quote(name), " is missing, and ", hyper_.place,
                         " does not say that the output matrix is tied to the embedding")));
      }
      return;
    }
    absl::StatusOr<bool> same = SameBytes(source_, found->second, plan_.tensors.front().source);
    if (!same.ok()) return Fail(same.status());
    hyper_.config.set_tied_embeddings(*same);
    if (*same) {
      taken_.insert(found->second);
      plan_.left_out.emplace_back(SourceName(found->second), "equals the embedding, stored once");
    } else {
      Take(kOutput, 0);
    }
  }

  // What is under the root and not taken is either known to be redundant or a reason to refuse.
  absl::Status JudgeTheRest() {
    std::vector<std::string> strangers;
    for (const auto& [name, index] : names_.index) {
      if (taken_.count(index) > 0) continue;
      const auto redundant = absl::c_find_if(kRedundant, [&name = name](const Redundant& r) {
        return absl::EndsWith(name, r.suffix);
      });
      if (redundant != std::end(kRedundant)) {
        plan_.left_out.emplace_back(SourceName(index), redundant->why);
      } else {
        strangers.push_back(SourceName(index));
      }
    }
    if (strangers.empty()) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat("tensors that have no place in a ", hyper_.config.architecture(), " model of ",
                     hyper_.config.n_layers(), " layers: ", SomeOf(strangers),
                     "; supported: ", kSupportedArchitectures));
  }

  // Sizes that the configuration leaves open are those of the first tensor that shows them.
  void LearnSizes(const TensorNames& row, const SourceTensor& tensor) {
    if (tensor.shape.size() != 2 || tensor.shape[0] <= 0 || tensor.shape[0] > INT32_MAX) return;
    const auto rows = static_cast<uint32_t>(tensor.shape[0]);
    pb::ModelConfig& config = hyper_.config;
    if (row.rows == Dim::kVocab && config.vocab_size() == 0) config.set_vocab_size(rows);
    if (row.rows == Dim::kFfn && config.ffn_dim() == 0) config.set_ffn_dim(rows);
  }

  bool Interleaved() const {
    return names_.naming == Naming::kMeta ||
           (names_.naming == Naming::kGguf && hyper_.gguf_interleaved);
  }
  static bool IsFloating(DType dtype) {
    switch (dtype) {
      case DType::kF64:
      case DType::kF32:
      case DType::kF16:
      case DType::kBF16:
      case DType::kF8E4M3FN:
      case DType::kF8E5M2:
        return true;
      default:
        return Info(dtype).decodable && Info(dtype).block_elements > 1;
    }
  }
  std::string SourceName(int index) const {
    return source_.tensors()[static_cast<size_t>(index)].name;
  }
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  const TensorSource& source_;
  const Names names_;
  Hyperparameters hyper_;
  bool biases_ = false;
  ModelPlan plan_;
  std::vector<std::string> missing_;
  std::set<int> taken_;
  absl::Status status_;
};

}  // namespace

absl::Span<const TensorNames> TensorNameTable() { return kTable; }

std::string OfLayer(const char* name, int64_t layer) {
  return absl::StrReplaceAll(name, {{"*", absl::StrCat(layer)}});
}

int64_t DimSize(const pb::ModelConfig& config, Dim dim) {
  switch (dim) {
    case Dim::kVocab:
      return config.vocab_size();
    case Dim::kHidden:
      return config.hidden_dim();
    case Dim::kQuery:
      return int64_t{config.n_heads()} * config.head_dim();
    case Dim::kKeyValue:
      return int64_t{config.n_kv_heads()} * config.head_dim();
    case Dim::kFfn:
      return config.ffn_dim();
    case Dim::kNone:
      return 0;
  }
  return 0;
}

int RotaryHeads(const pb::ModelConfig& config, absl::string_view canonical) {
  if (absl::EndsWith(canonical, ".wq") || absl::EndsWith(canonical, ".bq")) {
    return static_cast<int>(config.n_heads());
  }
  if (absl::EndsWith(canonical, ".wk") || absl::EndsWith(canonical, ".bk")) {
    return static_cast<int>(config.n_kv_heads());
  }
  return 0;
}

absl::StatusOr<ModelPlan> PlanModel(const TensorSource& source, const CheckpointConfig& where) {
  std::vector<std::string> names;
  for (const SourceTensor& tensor : source.tensors()) names.push_back(WithoutWrappers(tensor.name));
  const bool gguf = source.container() == "gguf";
  absl::StatusOr<Root> root = FindRoot(names, where);
  if (!root.ok()) {
    // The configuration may know better what is not supported.
    absl::StatusOr<Hyperparameters> hyperparameters =
        gguf ? ParseGgufMetadata(source)
             : FindHyperparameters(source, where.path, where.config_file, false);
    const bool known = absl::IsUnimplemented(hyperparameters.status());
    return absl::IsUnimplemented(root.status()) && known ? hyperparameters.status() : root.status();
  }
  absl::StatusOr<Hyperparameters> hyperparameters =
      gguf ? ParseGgufMetadata(source)
           : FindHyperparameters(source, where.path, where.config_file,
                                 root->naming == Naming::kMeta);
  if (!hyperparameters.ok()) return hyperparameters.status();
  if (!hyperparameters->quantization.empty() && !where.unpacked) {
    return absl::UnimplementedError(
        absl::StrCat(hyperparameters->place, ": 'quantization_config' (",
                     hyperparameters->quantization, ") is not supported"));
  }

  Names under_root{root->naming, {}};
  std::vector<std::pair<std::string, std::string>> left_out;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string& original = source.tensors()[i].name;
    absl::string_view name = names[i];
    if (!absl::ConsumePrefix(&name, root->prefix)) {
      left_out.emplace_back(original, IsTrainingState(names[i])
                                          ? "training state"
                                          : absl::StrCat("not under ", Quote(root->prefix)));
    } else if (root->prefix.empty() && IsTrainingState(names[i])) {
      left_out.emplace_back(original, "training state");
    } else if (!under_root.index.emplace(std::string(name), static_cast<int>(i)).second) {
      return absl::InvalidArgumentError(absl::StrCat(where.path, ": two tensors are ", Quote(name),
                                                     " of the model, one of them ", Quote(original),
                                                     "; choose one with --root NAME"));
    }
  }
  absl::StatusOr<ModelPlan> plan =
      Planner(source, std::move(under_root), *std::move(hyperparameters)).Plan();
  if (!plan.ok()) {
    return absl::Status(plan.status().code(),
                        absl::StrCat(where.path, ": ", plan.status().message()));
  }
  plan->left_out.insert(plan->left_out.end(), left_out.begin(), left_out.end());
  return plan;
}

}  // namespace quire
