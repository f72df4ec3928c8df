// The table of schemes: which encoding each tensor of a model gets.
#ifndef QUIRE_QUANTIZE_SCHEME_H_
#define QUIRE_QUANTIZE_SCHEME_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "format/encoding.h"

namespace quire {

// What a tensor is for. Canonical names: embedding, layers.N.{attn_norm, wq, wk, wv, bq, bk, bv,
// wo, ffn_norm, w_gate, w_up, w_down}, norm, output.
enum class TensorRole { kEmbedding, kOutput, kWq, kWk, kWv, kWo, kGate, kUp, kDown, kVector };

struct TensorName {
  TensorRole role;
  int layer;  // -1 outside the layers
};
// "layers.3.wq" -> {kWq, 3}. InvalidArgument for any other name.
absl::StatusOr<TensorName> ParseTensorName(absl::string_view canonical_name);

// Matrices of the layers get `layers`; where `mixed`, those where it pays most get q5, q6 or q8, as
// far as max_bits allow. Vectors are always f32.
//
//   name    layers           bits of the layers' matrices  embedding, output
//   q4      q4 to q8, mixed  at most 4.55                  q6
//   q4_hq   q4 to q8, mixed  at most 5.00                  q8
//   q4_0    q4_0             4.50                          q4_0
//   q8      q8               8.50                          q8
//   f16     f16              16                            f16
//   bf16    bf16             16                            bf16
//   f32     f32              32                            f32
struct Scheme {
  const char* name;         // as in --type
  const char* description;  // one line, with its bits per weight
  Encoding layers;
  bool mixed;
  double max_bits;  // per weight, over the layers' matrices, scales and padding included
  Encoding embedding;
  Encoding output;  // the output matrix, or the tied embedding
};
absl::Span<const Scheme> Schemes();
// InvalidArgument naming the schemes there are.
absl::StatusOr<const Scheme*> FindScheme(absl::string_view name);
// "q4, q4_hq, q4_0, ...".
std::string SchemeNames();

// The scheme of this name; where target_bits is not 0 (--target-bits), q4 or, from its bits on,
// q4_hq under that budget.
// InvalidArgument where there is none, or for a budget of a scheme that is not mixed.
absl::StatusOr<Scheme> SchemeFor(absl::string_view name, double target_bits);

// What --target-bits may be.
inline constexpr int kMinTargetBits = 4, kMaxTargetBits = 9;

// InvalidArgument where target_bits is not 0 and the layers' matrices of `source` take more, as
// `layer_bits` says (LayerBitsPerWeight). `why`: added to the message.
absl::Status CheckTargetBits(double target_bits, double layer_bits, absl::string_view source,
                             absl::string_view why = "");

struct SchemeTensor {
  TensorName name;
  int64_t rows, cols;                           // of a vector: 1 and its length
  std::optional<Encoding> kept = std::nullopt;  // what it gets whatever the scheme says
};

// What a matrix of the layers costs in quality: the divergence that an error of its weights causes,
// per weight and per unit of relative squared error (sum (stored - w)^2 / sum w^2), up to a factor
// common to all matrices. Of other tensors 0. This is what role, depth, shape and the layers'
// hidden outliers (outliers.h; empty: not looked for) tell without data (docs/quantization.md).
std::vector<double> PriorSensitivities(absl::Span<const SchemeTensor> tensors, int n_layers,
                                       absl::Span<const double> hidden_outliers = {});
// A hidden outlier beyond this makes its layer's w_down sensitive.
inline constexpr double kOutlier = 8;

// The encoding of each tensor of a model. A mixed scheme goes up from its `layers`, one step of one
// matrix at a time, always that which lowers sum (sensitivity x weights x relative squared error of
// its encoding) most per bit and still fits the budget; so it depends on its arguments alone, and
// stays within max_bits unless `layers`, with what is kept, does not. `sensitivities`: one for each
// tensor, in the unit of PriorSensitivities, where calibration has measured them; empty:
// PriorSensitivities.
std::vector<Encoding> ChooseEncodings(const Scheme& scheme, absl::Span<const SchemeTensor> tensors,
                                      int n_layers, bool tied_embeddings,
                                      absl::Span<const double> sensitivities = {});

}  // namespace quire

#endif  // QUIRE_QUANTIZE_SCHEME_H_
