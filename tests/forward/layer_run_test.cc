// Layer by layer over the caller's hidden states is the same computation as Forward.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "runtime/transformer.h"
#include "tests/forward/random_model.h"

namespace quire {
namespace {

using LayerInput = Transformer::LayerInput;

class LayerRunTest : public testing::TestWithParam<Encoding> {
 protected:
  void Open(const pb::ModelConfig& config) {
    const std::string path = testing::TempDir() + "/layer_run.quire";
    WriteRandomModel(path, config, GetParam(), Encoding::kF32, 1);
    model_ = std::make_unique<Model>(*Model::Open(path));
    transformer_ = *Transformer::Create(*model_, *ChooseKernels(), pool_, 200, 128);
  }

  // Logits of hidden states, by the runtime's kernels. The output matrix is f32.
  std::vector<float> Logits(const std::vector<float>& hidden) {
    const pb::ModelConfig& config = model_->config();
    const Geometry& g = model_->output().geometry;
    const int64_t n = hidden.size() / config.hidden_dim(), stride = transformer_->logits_stride();
    std::vector<float> normed(n * g.padded_cols()), logits(n * stride);
    for (int64_t t = 0; t < n; ++t) {
      ChooseKernels()->rms_norm(hidden.data() + t * config.hidden_dim(), model_->norm(),
                                config.hidden_dim(), config.norm_eps(),
                                normed.data() + t * g.padded_cols());
    }
    MatmulArgs args{};
    args.panels = model_->output().data;
    args.panel_bytes = g.unit_bytes();
    args.n_panels = g.units();
    args.groups = g.groups();
    args.x = normed.data();
    args.x_stride = g.padded_cols();
    args.n_tokens = n;
    args.y = logits.data();
    args.y_stride = stride;
    ChooseKernels()->matmul[static_cast<int>(g.encoding) - 1](args);
    return logits;
  }

  ThreadPool pool_{2};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Transformer> transformer_;
};

INSTANTIATE_TEST_SUITE_P(All, LayerRunTest, testing::Values(Encoding::kF16, Encoding::kQ4),
                         [](const auto& info) { return Info(info.param).name; });

TEST_P(LayerRunTest, GivesTheBitsOfForward) {
  pb::ModelConfig config = SmallConfig();
  config.set_sliding_window(50);
  Open(config);
  const std::vector<int32_t> tokens = SomeTokens(100, config);
  ASSERT_TRUE(transformer_->Forward(tokens).ok());
  const int64_t n_logits = 100 * transformer_->logits_stride();
  const float* expected = transformer_->Logits(0, 100);
  const std::vector<float> forward(expected, expected + n_logits);

  const int64_t dim = config.hidden_dim();
  std::vector<float> x(tokens.size() * dim);
  transformer_->EmbedTokens(tokens, x.data());
  for (const Layer& layer : model_->layers()) {
    for (const auto& [first, n] : {std::pair<int, int>{0, 37}, {37, 1}, {38, 62}}) {
      std::vector<LayerInput> seen;
      const auto observe = [&](LayerInput input, const float* values, int64_t stride,
                               int64_t rows) {
        seen.push_back(input);
        EXPECT_EQ(rows, n);
        const int64_t columns = input == LayerInput::kWo     ? config.n_heads() * config.head_dim()
                                : input == LayerInput::kDown ? config.ffn_dim()
                                                             : dim;
        for (int64_t t = 0; t < rows; ++t) {
          for (int64_t c = columns; c < stride; ++c) EXPECT_EQ(values[t * stride + c], 0);
        }
        return true;
      };
      EXPECT_TRUE(transformer_->RunAttention(layer, first, n, x.data() + first * dim, observe));
      EXPECT_TRUE(transformer_->RunFeedForward(layer, n, x.data() + first * dim, observe));
      EXPECT_EQ(seen, (std::vector<LayerInput>{LayerInput::kQkv, LayerInput::kWo,
                                               LayerInput::kGateUp, LayerInput::kDown}));
    }
  }
  EXPECT_EQ(Logits(x), forward);
}

TEST_P(LayerRunTest, StopsWhereItIsTold) {
  const pb::ModelConfig config = SmallConfig();
  Open(config);
  std::vector<float> x(20 * config.hidden_dim());
  transformer_->EmbedTokens(SomeTokens(20, config), x.data());
  const std::vector<float> before = x;
  for (const LayerInput last :
       {LayerInput::kQkv, LayerInput::kWo, LayerInput::kGateUp, LayerInput::kDown}) {
    const auto observe = [&](LayerInput input, const float*, int64_t, int64_t) {
      return input != last;
    };
    const Layer& layer = model_->layers()[0];
    const bool attention = last == LayerInput::kQkv || last == LayerInput::kWo;
    EXPECT_FALSE(attention ? transformer_->RunAttention(layer, 0, 20, x.data(), observe)
                           : transformer_->RunFeedForward(layer, 20, x.data(), observe));
    EXPECT_EQ(x, before);
  }
}

}  // namespace
}  // namespace quire
