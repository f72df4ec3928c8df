// The table of schemes: which encoding each tensor of a model gets.
#ifndef QUIRE_QUANTIZE_SCHEME_H_
#define QUIRE_QUANTIZE_SCHEME_H_

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

// Matrices of the layers get `layers`, but those that KeepOrder names first get `kept`, as many as
// the budget allows. Vectors are always f32.
//
//   name    layers  kept  bits of the layers' matrices  embedding, output
//   q4      q4      q8    at most 4.55                  q8
//   q4_hq   q4      q8    at most 5.00                  q8
//   q4_0    q4_0    -     4.50                          q4_0
//   q8      q8      -     8.50                          q8
//   f16     f16     -     16                            f16
//   bf16    bf16    -     16                            bf16
//   f32     f32     -     32                            f32
struct Scheme {
  const char* name;         // as in --type
  const char* description;  // one line, with its bits per weight
  Encoding layers;
  Encoding kept;
  double max_bits;  // per weight, over the layers' matrices, scales and padding included
  Encoding embedding;
  Encoding output;  // the output matrix, or the tied embedding
};
absl::Span<const Scheme> Schemes();
// InvalidArgument naming the schemes there are.
absl::StatusOr<const Scheme*> FindScheme(absl::string_view name);
// "q4, q4_hq, q4_0, ...".
std::string SchemeNames();

// The matrices of the layers in the order in which more bits pay, by measured divergence per added
// bit (docs/quantization.md).
std::vector<TensorName> KeepOrder(int n_layers);

struct SchemeTensor {
  TensorName name;
  int64_t rows, cols;  // of a vector: 1 and its length
};
// The encoding of each tensor of a model.
std::vector<Encoding> ChooseEncodings(const Scheme& scheme, absl::Span<const SchemeTensor> tensors,
                                      int n_layers, bool tied_embeddings);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_SCHEME_H_
