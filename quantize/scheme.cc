#include "quantize/scheme.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "format/packed_layout.h"

namespace quire {
namespace {

constexpr Scheme kSchemes[] = {
    {"q4", "4-bit codebook, the most sensitive matrices in 8 bits: at most 4.55 bits per weight",
     Encoding::kQ4, Encoding::kQ8, 4.55, Encoding::kQ8, Encoding::kQ8},
    {"q4_hq", "as q4 with more matrices in 8 bits: at most 5.0 bits per weight", Encoding::kQ4,
     Encoding::kQ8, 5.0, Encoding::kQ8, Encoding::kQ8},
    {"q4_0", "GGUF's Q4_0 everywhere: 4.5 bits per weight", Encoding::kQ4_0, Encoding::kQ4_0, 4.5,
     Encoding::kQ4_0, Encoding::kQ4_0},
    {"q8", "8-bit codes and 16-bit scales: 8.5 bits per weight", Encoding::kQ8, Encoding::kQ8, 8.5,
     Encoding::kQ8, Encoding::kQ8},
    {"f16", "IEEE half precision: 16 bits per weight", Encoding::kF16, Encoding::kF16, 16,
     Encoding::kF16, Encoding::kF16},
    {"bf16", "bfloat16: 16 bits per weight", Encoding::kBF16, Encoding::kBF16, 16, Encoding::kBF16,
     Encoding::kBF16},
    {"f32", "single precision: 32 bits per weight", Encoding::kF32, Encoding::kF32, 32,
     Encoding::kF32, Encoding::kF32},
};

constexpr struct {
  const char* name;
  TensorRole role;
} kLayerTensors[] = {
    {"attn_norm", TensorRole::kVector},
    {"wq", TensorRole::kWq},
    {"wk", TensorRole::kWk},
    {"wv", TensorRole::kWv},
    {"bq", TensorRole::kVector},
    {"bk", TensorRole::kVector},
    {"bv", TensorRole::kVector},
    {"wo", TensorRole::kWo},
    {"ffn_norm", TensorRole::kVector},
    {"w_gate", TensorRole::kGate},
    {"w_up", TensorRole::kUp},
    {"w_down", TensorRole::kDown},
};

bool InLayers(TensorRole role) {
  return role != TensorRole::kEmbedding && role != TensorRole::kOutput &&
         role != TensorRole::kVector;
}

}  // namespace

absl::StatusOr<TensorName> ParseTensorName(absl::string_view name) {
  if (name == "embedding") return TensorName{TensorRole::kEmbedding, -1};
  if (name == "output") return TensorName{TensorRole::kOutput, -1};
  if (name == "norm") return TensorName{TensorRole::kVector, -1};
  constexpr absl::string_view kPrefix = "layers.";
  const size_t dot = name.find('.', kPrefix.size());
  if (name.substr(0, kPrefix.size()) == kPrefix && dot != absl::string_view::npos) {
    const absl::string_view number = name.substr(kPrefix.size(), dot - kPrefix.size());
    int layer;
    if (absl::SimpleAtoi(number, &layer) && layer >= 0 && absl::StrCat(layer) == number) {
      for (const auto& tensor : kLayerTensors) {
        if (name.substr(dot + 1) == tensor.name) return TensorName{tensor.role, layer};
      }
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is not a canonical tensor name such as \"layers.0.wq\""));
}

absl::Span<const Scheme> Schemes() { return kSchemes; }

std::string SchemeNames() {
  return absl::StrJoin(kSchemes, ", ", [](std::string* out, const Scheme& scheme) {
    absl::StrAppend(out, scheme.name);
  });
}

absl::StatusOr<const Scheme*> FindScheme(absl::string_view name) {
  for (const Scheme& scheme : kSchemes) {
    if (name == scheme.name) return &scheme;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown type \"", name, "\"; there are ", SchemeNames()));
}

std::vector<TensorName> KeepOrder(int n_layers) {
  std::vector<TensorName> order;
  const auto add = [&](TensorRole role, int layer) {
    const auto same = [&](const TensorName& t) { return t.role == role && t.layer == layer; };
    if (layer >= 0 && layer < n_layers && std::none_of(order.begin(), order.end(), same)) {
      order.push_back({role, layer});
    }
  };
  // What the last layer adds goes to the output matrix undiluted; the first layers' outliers stay
  // in the residual stream.
  add(TensorRole::kDown, n_layers - 1);
  add(TensorRole::kDown, 0);
  add(TensorRole::kUp, n_layers - 1);
  add(TensorRole::kWo, 0);
  for (TensorRole role : {TensorRole::kWv, TensorRole::kWk, TensorRole::kDown, TensorRole::kWo,
                          TensorRole::kWq, TensorRole::kUp, TensorRole::kGate}) {
    for (int layer = 0; layer < n_layers; ++layer) add(role, layer);
  }
  return order;
}

std::vector<Encoding> ChooseEncodings(const Scheme& scheme, absl::Span<const SchemeTensor> tensors,
                                      int n_layers, bool tied_embeddings) {
  std::vector<Encoding> encodings(tensors.size(), Encoding::kF32);
  std::map<std::pair<TensorRole, int>, size_t> matrices;  // of the layers, by name
  double weights = 0, bits = 0;
  const auto bits_of = [&](size_t i, Encoding encoding) {
    return 8.0 * Geometry{encoding, Layout::kPanels, tensors[i].rows, tensors[i].cols}.bytes();
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorName& name = tensors[i].name;
    if (name.role == TensorRole::kEmbedding) {
      encodings[i] = tied_embeddings ? scheme.output : scheme.embedding;
    } else if (name.role == TensorRole::kOutput) {
      encodings[i] = scheme.output;
    } else if (InLayers(name.role)) {
      encodings[i] = scheme.layers;
      matrices[{name.role, name.layer}] = i;
      weights += static_cast<double>(tensors[i].rows) * tensors[i].cols;
      bits += bits_of(i, scheme.layers);
    }
  }
  if (scheme.kept == scheme.layers) return encodings;
  for (const TensorName& name : KeepOrder(n_layers)) {
    const auto found = matrices.find({name.role, name.layer});
    if (found == matrices.end()) continue;
    const size_t i = found->second;
    const double with = bits - bits_of(i, scheme.layers) + bits_of(i, scheme.kept);
    if (with > scheme.max_bits * weights) continue;
    encodings[i] = scheme.kept;
    bits = with;
  }
  return encodings;
}

}  // namespace quire
