#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

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

// The largest of the logits that are numbers; -infinity where none is. In lanes, so that it
// vectorizes.
float Max(absl::Span<const float> logits) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j)
      lanes[j] = logits[i + j] > lanes[j] ? logits[i + j] : lanes[j];
  }
  for (; i < logits.size(); ++i) lanes[0] = logits[i] > lanes[0] ? logits[i] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

// A logit that at least k logits reach, and not many more than k: the lower edge of the bin, of
// equal width, in which the k-th largest lies.
float TopKFloor(absl::Span<const float> logits, float max, float floor, int64_t k) {
  constexpr int kBins = 4096;
  const float width = (max - floor) / kBins;
  if (!(width > 0)) return floor;
  const float inverse = 1 / width;
  std::vector<int32_t> counts(kBins + 1);
  for (const float logit : logits) {
    // What lies below the floor, and NaN, is counted last.
    const float bin = (max - logit) * inverse;
    ++counts[bin < kBins ? static_cast<int>(bin) : kBins];
  }
  int64_t reached = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    reached += counts[bin];
    // A bin more than needed: the edge itself is rounded.
    if (reached >= k) return max - static_cast<float>(bin + 2) * width;
  }
  return floor;
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
  const float max = Max(logits);
  // Not found where every logit is NaN or -infinity: any token is as good as the first.
  const int64_t found = std::find(logits.begin(), logits.end(), max) - logits.begin();
  const int32_t best =
      found < static_cast<int64_t>(logits.size()) ? static_cast<int32_t>(found) : 0;
  // Below the smallest the arithmetic of f32 can divide by, only the most likely is left.
  constexpr double kCold = 1e-6;
  if (options_.temperature < kCold || options_.top_k == 1 || !std::isfinite(max)) return best;

  const float temperature = static_cast<float>(options_.temperature);
  float floor = max - kNegligible * temperature;
  // min_p compares with the most likely token, whatever else is dropped: it may come first, unless
  // it would change the sum that top_p is a part of.
  const float min_p_floor =
      options_.min_p > 0 ? max + temperature * static_cast<float>(std::log(options_.min_p)) : floor;
  if (options_.top_p == 1) floor = std::max(floor, min_p_floor);
  if (options_.top_k > 0) floor = std::max(floor, TopKFloor(logits, max, floor, options_.top_k));
  candidates_.resize(logits.size());
  size_t n = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates_[n] = {logits[i], 0.0f, static_cast<int32_t>(i)};
    n += logits[i] >= floor ? 1 : 0;
  }
  candidates_.resize(n);
  if (options_.top_k > 0 && options_.top_k < static_cast<int64_t>(n)) {
    sorted_ = candidates_;
    const auto last = sorted_.begin() + options_.top_k - 1;
    std::nth_element(sorted_.begin(), last, sorted_.end(), Likelier);
    KeepTo(*last);
  }
  const float inverse = 1 / temperature;
  for (Candidate& c : candidates_) c.weight = Exp((c.logit - max) * inverse);
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;

  if (options_.top_p < 1) {
    KeepTopP(max, temperature, options_.top_p * total);
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

bool Sampler::Likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Keeps `last` and the candidates that are more likely. They stay in the order of their ids.
void Sampler::KeepTo(Candidate last) {
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                   [&](const Candidate& c) { return Likelier(last, c); }),
                    candidates_.end());
}

// Keeps the most likely candidates, as many as it takes to weigh `wanted` together. In linear time:
// they are counted into bins of equal width by their logits, and only the one in which `wanted` is
// reached is sorted.
void Sampler::KeepTopP(float max, float temperature, double wanted) {
  constexpr int kBins = 4096;
  const float scale = (kBins - 1) / (kNegligible * temperature);
  const auto bin = [&](const Candidate& c) {
    return std::min(kBins - 1, static_cast<int>((max - c.logit) * scale));
  };
  std::vector<double> weight(kBins);
  for (const Candidate& c : candidates_) weight[bin(c)] += c.weight;
  int reached = 0;
  double kept = 0;
  while (reached < kBins - 1 && kept + weight[reached] < wanted) kept += weight[reached++];
  sorted_.clear();
  for (const Candidate& c : candidates_) {
    if (bin(c) == reached) sorted_.push_back(c);
  }
  std::sort(sorted_.begin(), sorted_.end(), Likelier);
  for (const Candidate& c : sorted_) {
    kept += c.weight;
    if (kept >= wanted) return KeepTo(c);
  }
  // Rounding: all together weigh a little less than was wanted.
  if (!sorted_.empty()) KeepTo(sorted_.back());
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
