// Choosing the next token from logits.
#ifndef QUIRE_RUNTIME_SAMPLER_H_
#define QUIRE_RUNTIME_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace quire {

// Neutral by default: the most likely token, always.
struct SamplerOptions {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // keep the k most likely; 0: all
  double top_p = 1;        // keep the fewest tokens whose probabilities sum to p or more
  double min_p = 0;        // keep tokens at least min_p times as likely as the most likely
  double repeat_penalty =
      1;  // logits of recent tokens: divided by it where positive, multiplied where negative
  uint64_t seed = 0;
};

// InvalidArgument naming the option that is out of range.
absl::Status CheckSamplerOptions(const SamplerOptions& options);

// SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195). The numbers that follow from a
// seed never change.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  // In [0, 1), a multiple of 2^-53.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

// Tokens that repeat_penalty looks back on.
inline constexpr int kRepeatWindow = 64;

// Applies, in this order: repeat_penalty (Keskar et al. 2019, arXiv:1909.05858), temperature,
// top_k, top_p (of what top_k left, renormalised), min_p; then draws. Of equal logits the lower id
// counts as the more likely one.
class Sampler {
 public:
  // Precondition: CheckSamplerOptions(options).ok().
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

  // `recent`: the sequence so far, of which the last kRepeatWindow tokens count. NaN logits are
  // never chosen where there is a number. Precondition: logits is not empty.
  int32_t Sample(absl::Span<const float> logits, absl::Span<const int32_t> recent);

 private:
  struct Candidate {
    float logit;
    float weight;  // e^((logit - max) / temperature)
    int32_t id;
  };
  static bool Likelier(const Candidate& a, const Candidate& b);
  void Penalize(absl::Span<const int32_t> recent);
  void KeepTo(Candidate last);
  void KeepTopP(float max, float temperature, double wanted);

  SamplerOptions options_;
  Random random_;
  std::vector<float> logits_;  // where they are changed
  std::vector<int32_t> penalized_;
  std::vector<Candidate> candidates_, sorted_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_SAMPLER_H_
