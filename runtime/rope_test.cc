#include "runtime/rope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace quire {
namespace {

constexpr double kPi = 3.14159265358979323846;

pb::ModelConfig Config(int head_dim, double theta) {
  pb::ModelConfig config;
  config.set_head_dim(head_dim);
  config.set_rope_theta(theta);
  return config;
}

TEST(RopeFrequencies, AreTheGeometricSeriesOfThePaper) {
  for (const int head_dim : {2, 8, 64, 128}) {
    for (const double theta : {10000.0, 500000.0, 1e6}) {
      const std::vector<float> frequencies = RopeFrequencies(Config(head_dim, theta));
      ASSERT_EQ(frequencies.size(), head_dim / 2u);
      for (int i = 0; i < head_dim / 2; ++i) {
        const double wanted = std::pow(theta, -2.0 * i / head_dim);
        EXPECT_NEAR(frequencies[i], wanted, 1e-7 * wanted) << head_dim << " " << i;
      }
    }
  }
}

TEST(RopeFrequencies, LinearScalingDividesThem) {
  pb::ModelConfig config = Config(64, 10000);
  const std::vector<float> plain = RopeFrequencies(config);
  config.mutable_rope_scaling()->set_kind(pb::RopeScaling::LINEAR);
  config.mutable_rope_scaling()->set_factor(2.5);
  const std::vector<float> scaled = RopeFrequencies(config);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_FLOAT_EQ(scaled[i], plain[i] / 2.5f);
}

TEST(RopeFrequencies, Llama3ScalingKeepsShortStretchesLongAndBlendsBetween) {
  pb::ModelConfig config = Config(128, 500000);
  pb::RopeScaling* s = config.mutable_rope_scaling();
  s->set_kind(pb::RopeScaling::LLAMA3);
  s->set_factor(8);
  s->set_low_freq_factor(1);
  s->set_high_freq_factor(4);
  s->set_original_context_tokens(8192);
  const std::vector<float> scaled = RopeFrequencies(config);
  int kept = 0, blended = 0, stretched = 0;
  for (size_t i = 0; i < scaled.size(); ++i) {
    const double f = std::pow(500000.0, -2.0 * static_cast<double>(i) / 128);
    const double wavelength = 2 * kPi / f;
    double wanted;
    if (wavelength < 8192.0 / 4) {
      wanted = f;
      ++kept;
    } else if (wavelength > 8192.0) {
      wanted = f / 8;
      ++stretched;
    } else {
      const double smooth = (8192 / wavelength - 1) / (4 - 1);
      wanted = (1 - smooth) * f / 8 + smooth * f;
      ++blended;
    }
    EXPECT_NEAR(scaled[i], wanted, 2e-7 * f) << i;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(blended, 0);
  EXPECT_GT(stretched, 0);
}

TEST(RopeRotate, TurnsPairsByTheirAngles) {
  const int head_dim = 16;
  const std::vector<float> frequencies = RopeFrequencies(Config(head_dim, 10000));
  for (const int position : {0, 1, 77, 4095}) {
    std::vector<float> cosine(8, NAN), sine(8, NAN), head(head_dim);
    RopeAngles(frequencies, position, cosine.data(), sine.data());
    for (int i = 0; i < head_dim; ++i) head[i] = std::sin(1.0f + i);
    const std::vector<float> before = head;
    RopeRotate(cosine.data(), sine.data(), head_dim, head.data());
    for (int i = 0; i < 8; ++i) {
      const double angle = position * std::pow(10000.0, -2.0 * i / head_dim);
      // The angle is a product of floats: its error grows with the position.
      const double tolerance = 1e-6 + 1.2e-7 * angle;
      EXPECT_NEAR(head[i], before[i] * std::cos(angle) - before[i + 8] * std::sin(angle),
                  tolerance);
      EXPECT_NEAR(head[i + 8], before[i + 8] * std::cos(angle) + before[i] * std::sin(angle),
                  tolerance);
    }
  }
}

}  // namespace
}  // namespace quire
