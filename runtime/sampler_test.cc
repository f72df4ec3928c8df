#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

namespace quire {
namespace {

constexpr int kDraws = 5000;

// How often each token comes, as parts of all draws.
std::map<int32_t, double> Frequencies(const SamplerOptions& options,
                                      const std::vector<float>& logits,
                                      const std::vector<int32_t>& recent = {}, int draws = kDraws) {
  Sampler sampler(options);
  std::map<int32_t, double> parts;
  for (int i = 0; i < draws; ++i) parts[sampler.Sample(logits, recent)] += 1.0 / draws;
  return parts;
}

// Compares with weights that need not sum to one; five standard deviations are let pass.
void ExpectDistribution(const std::map<int32_t, double>& parts, std::map<int32_t, double> weights) {
  double total = 0;
  for (const auto& [id, weight] : weights) total += weight;
  for (const auto& [id, part] : parts) EXPECT_TRUE(weights.count(id)) << "token " << id;
  for (const auto& [id, weight] : weights) {
    const double p = weight / total;
    const auto found = parts.find(id);
    EXPECT_NEAR(found == parts.end() ? 0 : found->second, p,
                1e-9 + 5 * std::sqrt(p * (1 - p) / kDraws))
        << "token " << id;
  }
}

SamplerOptions Options(double temperature) {
  SamplerOptions options;
  options.temperature = temperature;
  options.seed = 1;
  return options;
}

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, -1.0f, 2.5f};

TEST(Sampler, WithoutTemperatureTakesTheMostLikely) {
  Sampler sampler(SamplerOptions{});
  EXPECT_EQ(sampler.Sample(kLogits, {}), 1);
  EXPECT_EQ(sampler.Sample({5.0f, 7.0f, 7.0f}, {}), 1);  // the lower of equals
  EXPECT_EQ(sampler.Sample({NAN, -3.0f, NAN, -2.0f}, {}), 3);
  EXPECT_EQ(sampler.Sample({NAN, NAN}, {}), 0);
}

TEST(Sampler, DrawsInProportion) {
  for (const double temperature : {0.5, 1.0, 2.0}) {
    std::map<int32_t, double> weights;
    for (int i = 0; i < 5; ++i) weights[i] = std::exp(kLogits[i] / temperature);
    ExpectDistribution(Frequencies(Options(temperature), kLogits), weights);
  }
}

TEST(Sampler, TopKKeepsTheKMostLikely) {
  SamplerOptions options = Options(1);
  options.top_k = 3;
  ExpectDistribution(Frequencies(options, kLogits),
                     {{1, std::exp(3.0)}, {4, std::exp(2.5)}, {2, std::exp(2.0)}});
  options.top_k = 1;
  ExpectDistribution(Frequencies(options, kLogits), {{1, 1}});
  options.top_k = 2;
  ExpectDistribution(Frequencies(options, {1, 1, 1, 1}), {{0, 1}, {1, 1}});
}

TEST(Sampler, TopPKeepsTheFewestThatReachP) {
  // Probabilities .5 .25 .125 .125.
  const std::vector<float> logits = {std::log(.125f), std::log(.5f), std::log(.125f),
                                     std::log(.25f)};
  SamplerOptions options = Options(1);
  options.top_p = 0.49;
  ExpectDistribution(Frequencies(options, logits), {{1, 1}});
  options.top_p = 0.7;
  ExpectDistribution(Frequencies(options, logits), {{1, .5}, {3, .25}});
  options.top_p = 0.8;
  ExpectDistribution(Frequencies(options, logits), {{0, .125}, {1, .5}, {3, .25}});
  options.top_p = 0.95;
  ExpectDistribution(Frequencies(options, logits), {{0, .125}, {1, .5}, {2, .125}, {3, .25}});
}

TEST(Sampler, TopPIsAPartOfWhatTopKLeft) {
  const std::vector<float> logits = {std::log(.4f), std::log(.3f), std::log(.2f), std::log(.1f)};
  SamplerOptions options = Options(1);
  options.top_k = 2;
  options.top_p = 0.55;  // of .7: .385, below the first token's .4
  ExpectDistribution(Frequencies(options, logits), {{0, 1}});
}

TEST(Sampler, MinPComparesWithTheMostLikely) {
  SamplerOptions options = Options(1);
  options.min_p = 0.5;  // the logit at most log 2 = 0.69 below 3
  ExpectDistribution(Frequencies(options, kLogits), {{1, std::exp(3.0)}, {4, std::exp(2.5)}});
  options.top_p = 0.999;
  ExpectDistribution(Frequencies(options, kLogits), {{1, std::exp(3.0)}, {4, std::exp(2.5)}});
}

TEST(Sampler, RepeatPenaltyActsOnRecentTokens) {
  SamplerOptions options = Options(1);
  options.repeat_penalty = 2;
  ExpectDistribution(Frequencies(options, kLogits, {1, 3, 1}), {{0, std::exp(1.0)},
                                                                {1, std::exp(1.5)},
                                                                {2, std::exp(2.0)},
                                                                {3, std::exp(-2.0)},
                                                                {4, std::exp(2.5)}});
  std::vector<int32_t> recent(kRepeatWindow, 0);
  recent.insert(recent.begin(), 1);  // just out of the window
  options.temperature = 0;
  EXPECT_EQ(Sampler(options).Sample(kLogits, recent), 1);
  recent.back() = 1;
  EXPECT_EQ(Sampler(options).Sample(kLogits, recent), 4);
}

TEST(Sampler, OneSeedOneText) {
  // Of a large vocabulary, with every option: these ids are a promise to users who wrote a seed
  // down.
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 8 * std::sin(0.1f * i * i);
  SamplerOptions options = Options(0.9);
  options.seed = 42;
  options.top_k = 200;
  options.top_p = 0.95;
  options.min_p = 0.01;
  options.repeat_penalty = 1.1;
  Sampler sampler(options);
  std::vector<int32_t> drawn;
  for (int i = 0; i < 8; ++i) drawn.push_back(sampler.Sample(logits, drawn));
  EXPECT_EQ(drawn, (std::vector<int32_t>{753, 157, 293, 330, 32, 894, 219, 796}));
  EXPECT_GT(std::set<int32_t>(drawn.begin(), drawn.end()).size(), 4u);
  options.seed = 43;
  Sampler other(options);
  std::vector<int32_t> others;
  for (int i = 0; i < 8; ++i) others.push_back(other.Sample(logits, others));
  EXPECT_NE(others, drawn);
}

TEST(Sampler, LargeVocabularyAgreesWithADirectComputation) {
  std::vector<float> logits(128256);
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i] = 0.05f * (static_cast<int>(i * 7919 % 997) - 900);
  SamplerOptions options = Options(1.3);
  options.top_p = 0.4;
  const std::map<int32_t, double> parts = Frequencies(options, logits, {}, 500);
  // The tokens that the definition keeps, by sorting everything.
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  double total = 0, kept = 0;
  for (const float logit : logits) total += std::exp(logit / 1.3);
  std::set<int32_t> nucleus;
  for (size_t i = 0; kept < 0.4 * total; ++i) {
    kept += std::exp(logits[order[i]] / 1.3);
    nucleus.insert(order[i]);
  }
  double mean = 0, expected = 0;
  for (const auto& [id, part] : parts) {
    EXPECT_TRUE(nucleus.count(id)) << id;
    mean += part * logits[id];
  }
  for (const int32_t id : nucleus) expected += std::exp(logits[id] / 1.3) / kept * logits[id];
  EXPECT_NEAR(mean, expected, 0.3);
}

TEST(Sampler, InfiniteLogitsAreTakenOrLeft) {
  const float infinity = std::numeric_limits<float>::infinity();
  Sampler sampler(Options(1));
  EXPECT_EQ(sampler.Sample({0.0f, infinity, 1.0f}, {}), 1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(sampler.Sample({-infinity, -infinity, 1.0f}, {}), 2);
}

TEST(Random, IsSplitMix64) {
  // The first numbers of the published generator from seed 1234567.
  Random random(1234567);
  EXPECT_EQ(random.Next(), 6457827717110365317u);
  EXPECT_EQ(random.Next(), 3203168211198807973u);
  EXPECT_EQ(random.Next(), 9817491932198370423u);
}

TEST(SamplerOptions, OutOfRangeIsNamed) {
  EXPECT_TRUE(CheckSamplerOptions({}).ok());
  const struct {
    const char* flag;
    void (*change)(SamplerOptions& o);
  } cases[] = {
      {"--temp", [](SamplerOptions& o) { o.temperature = -0.1; }},
      {"--temp", [](SamplerOptions& o) { o.temperature = NAN; }},
      {"--top-k", [](SamplerOptions& o) { o.top_k = -1; }},
      {"--top-p", [](SamplerOptions& o) { o.top_p = 0; }},
      {"--top-p", [](SamplerOptions& o) { o.top_p = 1.01; }},
      {"--min-p", [](SamplerOptions& o) { o.min_p = 2; }},
      {"--repeat-penalty", [](SamplerOptions& o) { o.repeat_penalty = 0; }},
  };
  for (const auto& test : cases) {
    SamplerOptions options;
    test.change(options);
    const absl::Status status = CheckSamplerOptions(options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message().find(test.flag), 0u) << status;
  }
}

}  // namespace
}  // namespace quire
