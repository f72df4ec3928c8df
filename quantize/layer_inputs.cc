#include "quantize/layer_inputs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace quire {

absl::StatusOr<std::vector<int32_t>> CalibrationTokens(const Session& session,
                                                       absl::string_view text) {
  const absl::StatusOr<Tokenizer> tokenizer = session.LoadTokenizer();
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer->Encode(text);
  if (!tokens.ok()) return tokens.status();
  const size_t ctx = session.transformer().ctx();
  if (tokens->size() < ctx) {
    return absl::FailedPreconditionError(absl::StrCat("the calibration text has ", tokens->size(),
                                                      " tokens, wanted are ", ctx, " or more"));
  }
  tokens->resize(tokens->size() / ctx * ctx);
  // A model whose texts begin with a token says so by the empty text.
  const absl::StatusOr<std::vector<int32_t>> empty = tokenizer->Encode("");
  if (!empty.ok()) return empty.status();
  if (!empty->empty() && tokenizer->bos_id() == empty->front()) {
    for (size_t i = 0; i < tokens->size(); i += ctx) (*tokens)[i] = empty->front();
  }
  return tokens;
}

void LayerInputs::Embed(float* states) {
  for (size_t t = 0; t < tokens_.size(); t += Transformer::kBatchTokens) {
    transformer_.EmbedTokens(tokens_.subspan(t, Transformer::kBatchTokens),
                             states + t * model_.config().hidden_dim());
  }
}

void LayerInputs::ForEachBatch(float* states,
                               absl::FunctionRef<void(int64_t position, int64_t n, float* x)> run) {
  const int64_t tokens = tokens_.size(), ctx = transformer_.ctx();
  for (int64_t first = 0; first < tokens;) {
    const int64_t position = first % ctx;
    const int64_t n = std::min({Transformer::kBatchTokens, tokens - first, ctx - position});
    run(position, n, states + first * model_.config().hidden_dim());
    first += n;
  }
}

void LayerInputs::RunAttention(const Layer& layer, float* states,
                               Transformer::ObserveInput observe) {
  ForEachBatch(states, [&](int64_t position, int64_t n, float* x) {
    transformer_.RunAttention(layer, position, n, x, observe);
  });
}

void LayerInputs::RunFeedForward(const Layer& layer, float* states,
                                 Transformer::ObserveInput observe) {
  ForEachBatch(states, [&](int64_t, int64_t n, float* x) {
    transformer_.RunFeedForward(layer, n, x, observe);
  });
}

}  // namespace quire
