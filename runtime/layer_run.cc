// One layer at a time over hidden states of the caller's: what Forward does to all layers.
#include <cstring>

#include "runtime/rope.h"
#include "runtime/transformer.h"

namespace quire {

void Transformer::CopyIn(const float* x, int64_t n) {
  const int64_t hidden_dim = config_.hidden_dim();
  for (int64_t t = 0; t < n; ++t) {
    std::memcpy(x_ + t * hidden_stride_, x + t * hidden_dim, hidden_dim * sizeof(float));
  }
}

void Transformer::CopyOut(int64_t n, float* x) const {
  const int64_t hidden_dim = config_.hidden_dim();
  for (int64_t t = 0; t < n; ++t) {
    std::memcpy(x + t * hidden_dim, x_ + t * hidden_stride_, hidden_dim * sizeof(float));
  }
}

bool Transformer::ObserveNormed(LayerInput which, const float* norm, int64_t n,
                                ObserveInput observe) {
  float* normed = shared_.normed;
  for (int64_t t = 0; t < n; ++t) {
    kernels_.rms_norm(x_ + t * hidden_stride_, norm, config_.hidden_dim(), config_.norm_eps(),
                      normed + t * hidden_stride_);
  }
  return observe(which, normed, hidden_stride_, n);
}

void Transformer::EmbedTokens(absl::Span<const int32_t> tokens, float* x) {
  Embed(tokens);
  CopyOut(tokens.size(), x);
}

bool Transformer::RunAttention(const Layer& layer, int64_t position, int64_t n, float* x,
                               ObserveInput observe) {
  constexpr int64_t kCacheLayer = 0;
  CopyIn(x, n);
  if (!ObserveNormed(LayerInput::kQkv, layer.attn_norm, n, observe)) return false;
  position_ = position;
  for (int64_t t = 0; t < n; ++t) {
    RopeAngles(frequencies_, position_ + t, cosine_ + t * head_dim_ / 2, sine_ + t * head_dim_ / 2);
  }
  ProjectQkv(layer, kCacheLayer, n);
  Attend(kCacheLayer, n);
  if (!observe(LayerInput::kWo, attention_, q_stride_, n)) return false;
  AddProjection(layer.wo, {attention_, q_stride_, q_dim_, nullptr, layer.wo.is_integer()}, n, {});
  CopyOut(n, x);
  return true;
}

bool Transformer::RunFeedForward(const Layer& layer, int64_t n, float* x, ObserveInput observe) {
  CopyIn(x, n);
  if (!ObserveNormed(LayerInput::kGateUp, layer.ffn_norm, n, observe)) return false;
  GateAndUp(layer, n);
  if (!observe(LayerInput::kDown, gate_, ffn_stride_, n)) return false;
  AddProjection(layer.w_down,
                {gate_, ffn_stride_, config_.ffn_dim(), nullptr, layer.w_down.is_integer()}, n, {});
  CopyOut(n, x);
  return true;
}

}  // namespace quire
