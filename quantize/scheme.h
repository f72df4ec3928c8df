// The table of schemes: which encoding each tensor of a model gets.
#ifndef QUIRE_QUANTIZE_SCHEME_H_
#define QUIRE_QUANTIZE_SCHEME_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "format/encoding.h"

namespace quire {

// What a tensor is for. Canonical names: embedding, layers.N.{attn_norm, wq, wk, wv, bq, bk, bv,
// wo, ffn_norm, w_gate, w_up, w_down}, norm, output.
enum class TensorRole { kEmbedding, kOutput, kWq, kWk, kWv, kWo, kGate, kUp, kDown, kVector };

// Role of a canonical name ("layers.3.wq" -> kWq). InvalidArgument for any other name.
absl::StatusOr<TensorRole> RoleOf(absl::string_view canonical_name);

struct Scheme {
  const char* name;         // as in --type
  const char* description;  // one line, with its bits per weight
  Encoding layers;          // matrices of the layers, but for:
  Encoding wv;              //   attention values
  Encoding down;            //   FFN down projection in the layers that `keeps_down` names
  Encoding embedding;       // gathered rows (untied)
  Encoding output;          // the output matrix, or the tied embedding
};
absl::Span<const Scheme> Schemes();
// InvalidArgument naming the schemes there are.
absl::StatusOr<const Scheme*> FindScheme(absl::string_view name);

// The encoding of one tensor of a model with n_layers. Vectors are always f32.
Encoding EncodingFor(const Scheme& scheme, TensorRole role, int layer, int n_layers,
                     bool tied_embeddings);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_SCHEME_H_
