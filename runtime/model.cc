#include "runtime/model.h"

#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

// Architectures share one forward pass; the attention biases are what may differ.
struct Architecture {
  const char* name;
  bool attention_biases;  // always; others have them where the file does
};
constexpr Architecture kArchitectures[] = {{"llama", false}, {"mistral", false}, {"qwen2", true}};

absl::StatusOr<Architecture> FindArchitecture(const std::string& name) {
  std::vector<std::string> known;
  for (const Architecture& a : kArchitectures) {
    if (name == a.name) return a;
    known.push_back(a.name);
  }
  return absl::UnimplementedError(absl::StrCat("architecture \"", name,
                                               "\" is not one that this version runs (",
                                               absl::StrJoin(known, ", "), ")"));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Finds tensors by name and checks what they are. The first error stays; later calls return empty
// values.
class Binder {
 public:
  explicit Binder(const ModelFile& file) : file_(file) {}
  const absl::Status& status() const { return status_; }
  bool Used(const TensorView* view) const { return used_.contains(view); }

  const TensorView* Tensor(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status_.ok()) return nullptr;
    const TensorView* view = file_.Find(name);
    if (view == nullptr) {
      status_ = absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
    } else if (view->shape != shape) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " has the shape ", ShapeText(view->shape),
                       "; the configuration wants ", ShapeText(shape)));
      view = nullptr;
    }
    used_.insert(view);
    return view;
  }

  Matrix Panels(const std::string& name, int64_t rows, int64_t cols) {
    const TensorView* view = Tensor(name, {rows, cols});
    if (view == nullptr) return {};
    if (view->geometry.layout != Layout::kPanels) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is multiplied, but its layout is not PANELS"));
      return {};
    }
    return {view->geometry, view->codebook, view->data};
  }

  const float* Vector(const std::string& name, int64_t n) {
    const TensorView* view = Tensor(name, {n});
    if (view == nullptr) return nullptr;
    if (view->geometry.layout != Layout::kRows || view->geometry.encoding != Encoding::kF32) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is a vector, but not f32 in the layout ROWS"));
      return nullptr;
    }
    return reinterpret_cast<const float*>(view->data);
  }

 private:
  const ModelFile& file_;
  absl::flat_hash_set<const TensorView*> used_;
  absl::Status status_;
};

}  // namespace

absl::Status Model::Bind() {
  const pb::ModelConfig& c = config();
  const absl::StatusOr<Architecture> architecture = FindArchitecture(c.architecture());
  if (!architecture.ok()) return architecture.status();
  if (c.head_dim() > kMaxHeadDim) {
    return absl::UnimplementedError(
        absl::StrCat("config: head_dim ", c.head_dim(), " is more than ", kMaxHeadDim));
  }

  const int64_t hidden = c.hidden_dim(), ffn = c.ffn_dim(), vocab = c.vocab_size();
  const int64_t q_dim = int64_t{c.n_heads()} * c.head_dim(),
                kv_dim = int64_t{c.n_kv_heads()} * c.head_dim();
  Binder bind(file_);
  embedding_ = bind.Tensor("embedding", {vocab, hidden});
  for (uint32_t l = 0; l < c.n_layers() && bind.status().ok(); ++l) {
    const std::string prefix = absl::StrCat("layers.", l, ".");
    const bool biases = architecture->attention_biases || file_.Find("layers.0.bq") != nullptr;
    Layer layer;
    layer.attn_norm = bind.Vector(prefix + "attn_norm", hidden);
    layer.wq = bind.Panels(prefix + "wq", q_dim, hidden);
    layer.wk = bind.Panels(prefix + "wk", kv_dim, hidden);
    layer.wv = bind.Panels(prefix + "wv", kv_dim, hidden);
    layer.bq = biases ? bind.Vector(prefix + "bq", q_dim) : nullptr;
    layer.bk = biases ? bind.Vector(prefix + "bk", kv_dim) : nullptr;
    layer.bv = biases ? bind.Vector(prefix + "bv", kv_dim) : nullptr;
    layer.wo = bind.Panels(prefix + "wo", hidden, q_dim);
    layer.ffn_norm = bind.Vector(prefix + "ffn_norm", hidden);
    layer.w_gate = bind.Panels(prefix + "w_gate", ffn, hidden);
    layer.w_up = bind.Panels(prefix + "w_up", ffn, hidden);
    layer.w_down = bind.Panels(prefix + "w_down", hidden, ffn);
    layers_.push_back(layer);
  }
  norm_ = bind.Vector("norm", hidden);
  output_ = bind.Panels(c.tied_embeddings() ? "embedding" : "output", vocab, hidden);
  if (!bind.status().ok()) return bind.status();
  // A tensor that nothing reads is a part of the model that would not be computed.
  for (const TensorView& view : file_.tensors()) {
    if (!bind.Used(&view)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", view.name, " has no place in this architecture"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Model> Model::Open(const std::string& path) {
  absl::StatusOr<ModelFile> file = ModelFile::Open(path);
  if (!file.ok()) return file.status();
  Model model(*std::move(file));
  if (absl::Status status = model.Bind(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  }
  return model;
}

int64_t Model::decode_bytes() const {
  int64_t bytes = 0;
  for (const TensorView& view : file_.tensors()) {
    const bool gathered = &view == embedding_ && !config().tied_embeddings();
    bytes += gathered ? view.geometry.unit_bytes() : view.bytes;
  }
  return bytes;
}

}  // namespace quire
