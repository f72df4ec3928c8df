#include "quantize/scheme.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "format/packed_layout.h"

namespace quire {
namespace {

// The mixed ones first, by their bits. Beside layers of 4.55 bits, embedding and output in q6
// cost less quality than they save bytes (docs/quantization.md).
constexpr Scheme kSchemes[] = {
    {"q4", "4 bits, the most sensitive matrices in 5 to 8: at most 4.55 bits per weight",
     Encoding::kQ4, true, 4.55, Encoding::kQ6, Encoding::kQ6},
    {"q4_hq", "as q4 with more matrices in 5 to 8 bits: at most 5.0 bits per weight", Encoding::kQ4,
     true, 5.0, Encoding::kQ8, Encoding::kQ8},
    {"q4_0", "GGUF's Q4_0 everywhere: 4.5 bits per weight", Encoding::kQ4_0, false, 4.5,
     Encoding::kQ4_0, Encoding::kQ4_0},
    {"q8", "8-bit codes and 16-bit scales: 8.5 bits per weight", Encoding::kQ8, false, 8.5,
     Encoding::kQ8, Encoding::kQ8},
    {"f16", "IEEE half precision: 16 bits per weight", Encoding::kF16, false, 16, Encoding::kF16,
     Encoding::kF16},
    {"bf16", "bfloat16: 16 bits per weight", Encoding::kBF16, false, 16, Encoding::kBF16,
     Encoding::kBF16},
    {"f32", "single precision: 32 bits per weight", Encoding::kF32, false, 32, Encoding::kF32,
     Encoding::kF32},
};

// What a mixed scheme climbs: each step's relative squared error on weights of trained models.
constexpr struct {
  Encoding encoding;
  double relative_squared_error;
} kLadder[] = {{Encoding::kQ4, 5.9e-3},
               {Encoding::kQ5, 1.5e-3},
               {Encoding::kQ6, 0.47e-3},
               {Encoding::kQ8, 0.027e-3}};
constexpr int kLadderSteps = sizeof(kLadder) / sizeof(kLadder[0]);

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

absl::StatusOr<Scheme> SchemeFor(absl::string_view name, double target_bits) {
  absl::StatusOr<const Scheme*> found = FindScheme(name);
  if (!found.ok()) return found.status();
  if (target_bits == 0) return **found;
  if (!(*found)->mixed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--target-bits goes with a type that mixes encodings, q4 or q4_hq, not with ", name));
  }
  const Scheme &small = kSchemes[0], &large = kSchemes[1];
  Scheme scheme = target_bits < large.max_bits ? small : large;
  scheme.name = "mixed";
  scheme.max_bits = target_bits;
  return scheme;
}

absl::Status CheckTargetBits(double target_bits, double layer_bits, absl::string_view source,
                             absl::string_view why) {
  if (target_bits == 0 || layer_bits <= target_bits) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("--target-bits %g: the layers' matrices of %s take at least %.3f bits%s",
                      target_bits, source, layer_bits, why));
}

std::vector<double> PriorSensitivities(absl::Span<const SchemeTensor> tensors, int n_layers,
                                       absl::Span<const double> hidden_outliers) {
  // Key and value heads serve several query heads each.
  double query_rows = 0, kv_rows = 0;
  for (const SchemeTensor& tensor : tensors) {
    if (tensor.name.role == TensorRole::kWq) query_rows = static_cast<double>(tensor.rows);
    if (tensor.name.role == TensorRole::kWk) kv_rows = static_cast<double>(tensor.rows);
  }
  const double sharing = kv_rows > 0 ? query_rows / kv_rows : 1;
  const int edge = (n_layers + 7) / 8;  // layers that count as first or last
  std::vector<double> result;
  for (const SchemeTensor& tensor : tensors) {
    const int layer = tensor.name.layer;
    const bool last = layer == n_layers - 1, first = layer == 0;
    switch (tensor.name.role) {
      case TensorRole::kWv:
        result.push_back(4 * sharing);
        break;
      case TensorRole::kWk:
        result.push_back(sharing);
        break;
      case TensorRole::kWq:
        result.push_back(1.2);
        break;
      case TensorRole::kWo:
        result.push_back(layer < 2 ? 2.5 : 1);
        break;
      case TensorRole::kGate:
        result.push_back(last ? 2 : first ? 1 : 0.5);
        break;
      case TensorRole::kUp:
        result.push_back(last ? 8 : first ? 2 : 0.8);
        break;
      case TensorRole::kDown: {
        // What the last layer adds reaches the output matrix undiluted; in the first ones, and
        // where a hidden unit sticks out, arise the few huge activations that stay in the residual
        // stream.
        const bool outlier =
            layer < static_cast<int>(hidden_outliers.size()) && hidden_outliers[layer] > kOutlier;
        const bool at_edge = layer < edge || layer >= n_layers - edge;
        result.push_back(last ? 10 : outlier ? 6 : first ? 3.5 : at_edge ? 2 : 0.8);
        break;
      }
      default:
        result.push_back(0);
    }
  }
  return result;
}

std::vector<Encoding> ChooseEncodings(const Scheme& scheme, absl::Span<const SchemeTensor> tensors,
                                      int n_layers, bool tied_embeddings,
                                      absl::Span<const double> sensitivities) {
  std::vector<Encoding> encodings;
  std::vector<int> step(tensors.size(), kLadderSteps);  // on the ladder; at its end: stays
  double weights = 0, bits = 0;
  const auto bits_of = [&](size_t i, Encoding encoding) {
    return 8.0 * Geometry{encoding, Layout::kPanels, tensors[i].rows, tensors[i].cols}.bytes();
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorRole role = tensors[i].name.role;
    encodings.push_back(role == TensorRole::kVector   ? Encoding::kF32
                        : role == TensorRole::kOutput ? scheme.output
                        : role == TensorRole::kEmbedding
                            ? (tied_embeddings ? scheme.output : scheme.embedding)
                            : scheme.layers);
    if (tensors[i].kept.has_value()) encodings[i] = *tensors[i].kept;
    if (!InLayers(role)) continue;
    if (!tensors[i].kept.has_value()) step[i] = 0;
    weights += static_cast<double>(tensors[i].rows) * tensors[i].cols;
    bits += bits_of(i, encodings[i]);
  }
  if (!scheme.mixed) return encodings;
  const std::vector<double> prior = PriorSensitivities(tensors, n_layers);
  if (sensitivities.empty()) sensitivities = prior;
  for (;;) {
    size_t best = tensors.size();
    double best_gain = -1, best_bits = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (step[i] + 1 >= kLadderSteps) continue;
      const auto &now = kLadder[step[i]], &next = kLadder[step[i] + 1];
      const double added = bits_of(i, next.encoding) - bits_of(i, now.encoding);
      if (bits + added > scheme.max_bits * weights) continue;
      const double gain = sensitivities[i] * static_cast<double>(tensors[i].rows) *
                          static_cast<double>(tensors[i].cols) *
                          (now.relative_squared_error - next.relative_squared_error) / added;
      if (gain > best_gain) best = i, best_gain = gain, best_bits = added;
    }
    if (best == tensors.size()) return encodings;
    encodings[best] = kLadder[++step[best]].encoding;
    bits += best_bits;
  }
}

}  // namespace quire
