#include "runtime/rope.h"

#include <cmath>

namespace quire {
namespace {

constexpr double kPi = 3.14159265358979323846;

// Llama 3.1: wavelengths beyond what the original context could show (original / low_freq_factor)
// are stretched by factor, short ones (below original / high_freq_factor) are kept, those between
// are blended.
float ScaleLlama3(float frequency, const pb::RopeScaling& s) {
  const double original = s.original_context_tokens();
  const double wavelength = 2 * kPi / frequency;
  if (wavelength < original / s.high_freq_factor()) return frequency;
  if (wavelength > original / s.low_freq_factor())
    return static_cast<float>(frequency / s.factor());
  const double kept =
      (original / wavelength - s.low_freq_factor()) / (s.high_freq_factor() - s.low_freq_factor());
  return static_cast<float>((1 - kept) * frequency / s.factor() + kept * frequency);
}

}  // namespace

std::vector<float> RopeFrequencies(const pb::ModelConfig& config) {
  const pb::RopeScaling& scaling = config.rope_scaling();
  std::vector<float> frequencies(config.head_dim() / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    float f = static_cast<float>(
        std::pow(config.rope_theta(), -2.0 * static_cast<double>(i) / config.head_dim()));
    if (scaling.kind() == pb::RopeScaling::LINEAR) f = static_cast<float>(f / scaling.factor());
    if (scaling.kind() == pb::RopeScaling::LLAMA3) f = ScaleLlama3(f, scaling);
    frequencies[i] = f;
  }
  return frequencies;
}

void RopeAngles(const std::vector<float>& frequencies, int64_t position, float* cosine,
                float* sine) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
    sine[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
  }
}

void RopeRotate(const float* cosine, const float* sine, int64_t head_dim, float* head) {
  const int64_t half = head_dim / 2;
  float* other = head + half;
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = other[i];
    head[i] = a * cosine[i] - b * sine[i];
    other[i] = b * cosine[i] + a * sine[i];
  }
}

}  // namespace quire
