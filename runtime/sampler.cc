#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

absl::Status Wanted(const char* flag, double value, const char* range) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " is ", value, ", wanted ", range));
}

// e^x for -80 <= x <= 0, relative error below 3e-7; branch-free, so that a loop over it vectorizes.
// x log2(e) is split into a whole n and a fraction f in [-0.5, 0.5]; 2^f is its Taylor polynomial.
inline float Exp(float x) {
  const float t = x * 1.44269504f;
  const float shifted = t + 12582912.0f;  // 1.5 x 2^23: the low bits of the sum hold n
  const float f = (t - (shifted - 12582912.0f)) * 0.693147181f;
  const float p =
      1.0f +
      f * (1.0f +
           f * (0.5f + f * (1.66666667e-1f +
                            f * (4.16666667e-2f + f * (8.33333333e-3f + f * 1.38888889e-3f)))));
  uint32_t bits, n;
  std::memcpy(&bits, &p, sizeof bits);
  std::memcpy(&n, &shifted, sizeof n);
  bits += n << 23;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// Below the largest logit by this many temperatures, a token is left out: all of a vocabulary
// together would weigh less than 1e-12 of the most likely one.
constexpr float kNegligible = 40;

int32_t ArgMax(absl::Span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best] || std::isnan(logits[best])) best = i;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

absl::Status CheckSamplerOptions(const SamplerOptions& o) {
  if (!(o.temperature >= 0 && o.temperature <= 100))
    return Wanted("--temp", o.temperature, "0 to 100");
  if (o.top_k < 0) return Wanted("--top-k", static_cast<double>(o.top_k), "0 (all) or more");
  if (!(o.top_p > 0 && o.top_p <= 1)) return Wanted("--top-p", o.top_p, "more than 0, to 1");
  if (!(o.min_p >= 0 && o.min_p <= 1)) return Wanted("--min-p", o.min_p, "0 to 1");
  if (!(o.repeat_penalty > 0 && o.repeat_penalty <= 100)) {
    return Wanted("--repeat-penalty", o.repeat_penalty, "more than 0, to 100");
  }
  return absl::OkStatus();
}

int32_t Sampler::Sample(absl::Span<const float> logits, absl::Span<const int32_t> recent) {
  if (options_.repeat_penalty != 1) {
    logits_.assign(logits.begin(), logits.end());
    Penalize(recent);
    logits = logits_;
  }
  const int32_t best = ArgMax(logits);
  const float max = logits[best];
  if (options_.temperature == 0 || options_.top_k == 1 || !std::isfinite(max)) return best;

  const float temperature = static_cast<float>(options_.temperature);
  float floor = max - kNegligible * temperature;
  // min_p compares with the most likely token, whatever else is dropped: it may come first, unless
  // it would change the sum that top_p is a part of.
  const float min_p_floor =
      options_.min_p > 0 ? max + temperature * static_cast<float>(std::log(options_.min_p)) : floor;
  if (options_.top_p == 1) floor = std::max(floor, min_p_floor);
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= floor) candidates_.push_back({logits[i], 0.0f, static_cast<int32_t>(i)});
  }
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  };
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(candidates_.size())) {
    std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(),
                     likelier);
    candidates_.resize(options_.top_k);
  }
  const float inverse = 1 / temperature;
  for (Candidate& c : candidates_) c.weight = Exp((c.logit - max) * inverse);
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;

  if (options_.top_p < 1) {
    // All tokens below this weight together are less than what top_p leaves out.
    const double negligible =
        (1 - options_.top_p) * total / static_cast<double>(candidates_.size());
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                     [&](const Candidate& c) { return c.weight < negligible; }),
                      candidates_.end());
    // A heap yields the most likely ones in order, as many as are needed.
    const auto less = [&](const Candidate& a, const Candidate& b) { return likelier(b, a); };
    std::make_heap(candidates_.begin(), candidates_.end(), less);
    auto end = candidates_.end();
    double kept = 0;
    while (end != candidates_.begin() && kept < options_.top_p * total) {
      std::pop_heap(candidates_.begin(), end, less);
      kept += (--end)->weight;
    }
    candidates_.erase(candidates_.begin(), end);
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                     [&](const Candidate& c) { return c.logit < min_p_floor; }),
                      candidates_.end());
    total = 0;
    for (const Candidate& c : candidates_) total += c.weight;
  }

  double left = random_.Uniform() * total;
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return best;  // rounding left a little over
}

void Sampler::Penalize(absl::Span<const int32_t> recent) {
  if (recent.size() > kRepeatWindow) recent.remove_prefix(recent.size() - kRepeatWindow);
  penalized_.assign(recent.begin(), recent.end());
  std::sort(penalized_.begin(), penalized_.end());
  penalized_.erase(std::unique(penalized_.begin(), penalized_.end()), penalized_.end());
  const float penalty = static_cast<float>(options_.repeat_penalty);
  for (const int32_t id : penalized_) {
    if (id < 0 || id >= static_cast<int64_t>(logits_.size())) continue;
    float& logit = logits_[id];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

}  // namespace quire
