#include "runtime/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/forward/random_model.h"

namespace quire {
namespace {

std::string TestPath() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  std::string name = info->name();
  std::replace(name.begin(), name.end(), '/', '_');
  return testing::TempDir() + "/" + name + ".quire";
}

// A model and what runs it.
class Runner {
 public:
  Runner(const std::string& path, int threads, int64_t ctx, int64_t max_logits = 1,
         const KernelTable* kernels = ChooseKernels())
      : model_(*Model::Open(path)),
        pool_(threads),
        transformer_(*Transformer::Create(model_, *kernels, pool_, ctx, max_logits)) {}
  Transformer* operator->() { return transformer_.get(); }
  Transformer& operator*() { return *transformer_; }

  // Logits after each token; `batches` says how many tokens each call gets, the last one repeated.
  std::vector<std::vector<float>> Logits(const std::vector<int32_t>& tokens,
                                         const std::vector<int>& batches) {
    std::vector<std::vector<float>> logits;
    size_t begin = 0;
    for (size_t b = 0; begin < tokens.size(); ++b) {
      const size_t n =
          std::min<size_t>(batches[std::min(b, batches.size() - 1)], tokens.size() - begin);
      EXPECT_TRUE(transformer_->Forward(absl::MakeConstSpan(tokens).subspan(begin, n)).ok());
      for (size_t t = 0; t < n; ++t) {
        const float* row = transformer_->Logits(t, 1);
        logits.emplace_back(row, row + model_.config().vocab_size());
      }
      begin += n;
    }
    return logits;
  }

 private:
  Model model_;
  ThreadPool pool_;
  std::unique_ptr<Transformer> transformer_;
};

// The largest difference from the reference, as a part of the reference's range.
double RelativeError(const std::vector<std::vector<float>>& logits,
                     const std::vector<std::vector<double>>& reference) {
  double worst = 0;
  EXPECT_EQ(logits.size(), reference.size());
  for (size_t t = 0; t < logits.size(); ++t) {
    const auto [low, high] = std::minmax_element(reference[t].begin(), reference[t].end());
    for (size_t i = 0; i < logits[t].size(); ++i) {
      const double error = std::abs(logits[t][i] - reference[t][i]) / (*high - *low);
      worst = std::max(worst, std::isfinite(error) ? error : 1e9);
    }
  }
  return worst;
}

struct Case {
  const char* name;
  void (*change)(pb::ModelConfig& config);
};
constexpr Case kCases[] = {
    {"small", [](pb::ModelConfig&) {}},
    {"tied", [](pb::ModelConfig& c) { c.set_tied_embeddings(true); }},
    {"head_dim_64",
     [](pb::ModelConfig& c) {
       c.set_head_dim(64);
       c.set_hidden_dim(96);
     }},
    {"head_dim_24", [](pb::ModelConfig& c) { c.set_head_dim(24); }},
    {"one_head",
     [](pb::ModelConfig& c) {
       c.set_n_heads(1);
       c.set_n_kv_heads(1);
       c.set_head_dim(2);
     }},
    {"linear",
     [](pb::ModelConfig& c) {
       c.mutable_rope_scaling()->set_kind(pb::RopeScaling::LINEAR);
       c.mutable_rope_scaling()->set_factor(4);
     }},
    {"llama3",
     [](pb::ModelConfig& c) {
       c.set_head_dim(64);
       c.set_rope_theta(500000);
       pb::RopeScaling* s = c.mutable_rope_scaling();
       s->set_kind(pb::RopeScaling::LLAMA3);
       s->set_factor(8);
       s->set_low_freq_factor(1);
       s->set_high_freq_factor(4);
       s->set_original_context_tokens(64);
     }},
    {"window",
     [](pb::ModelConfig& c) {
       c.set_architecture("mistral");
       c.set_sliding_window(13);
     }},
    {"qwen2",
     [](pb::ModelConfig& c) {
       c.set_architecture("qwen2");
       c.set_tied_embeddings(true);
     }},
};

class ForwardTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, ForwardTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST_P(ForwardTest, FloatWeightsGiveTheReferencesLogits) {
  pb::ModelConfig config = SmallConfig();
  GetParam().change(config);
  const std::vector<int32_t> tokens = SomeTokens(70, config);
  for (const Encoding encoding : {Encoding::kF32, Encoding::kF16, Encoding::kBF16}) {
    WriteRandomModel(TestPath(), config, encoding, encoding, 1);
    const auto reference = ReferenceLogits(TestPath(), tokens);
    EXPECT_LT(RelativeError(Runner(TestPath(), 2, 128).Logits(tokens, {50, 1}), reference), 2e-4)
        << Info(encoding).name;
  }
}

TEST_P(ForwardTest, IntegerWeightsGiveTheReferencesLogits) {
  pb::ModelConfig config = SmallConfig();
  GetParam().change(config);
  const std::vector<int32_t> tokens = SomeTokens(40, config);
  for (const Encoding encoding : {Encoding::kQ8, Encoding::kQ4, Encoding::kQ4_0, Encoding::kQ5,
                                  Encoding::kQ6, Encoding::kQ4_1}) {
    WriteRandomModel(TestPath(), config, encoding, Encoding::kQ8, 2);
    const auto reference = ReferenceLogits(TestPath(), tokens);
    // An activation that lies between two steps may round to either.
    EXPECT_LT(RelativeError(Runner(TestPath(), 2, 128).Logits(tokens, {20, 1}), reference), 0.03)
        << Info(encoding).name;
  }
}

TEST_P(ForwardTest, BitsDependNeitherOnThreadsNorOnBatches) {
  pb::ModelConfig config = SmallConfig();
  GetParam().change(config);
  const std::vector<int32_t> tokens = SomeTokens(140, config);
  for (const Encoding encoding : {Encoding::kF32, Encoding::kQ4}) {
    WriteRandomModel(TestPath(), config, encoding, Encoding::kQ8, 3);
    const auto expected = Runner(TestPath(), 1, 140).Logits(tokens, {1});
    const struct {
      int threads;
      std::vector<int> batches;
    } runs[] = {{1, {128}}, {2, {1}}, {3, {7, 1, 64, 3}}, {2, {2}}, {3, {128}}};
    for (const auto& run : runs) {
      EXPECT_EQ(Runner(TestPath(), run.threads, 200).Logits(tokens, run.batches), expected)
          << Info(encoding).name << ", " << run.threads << " threads, batches of "
          << run.batches[0];
    }
  }
}

TEST(TransformerTest, ManyLogitsAreThoseOfEachToken) {
  const pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kQ4_0, Encoding::kQ8, 4);
  const std::vector<int32_t> tokens = SomeTokens(33, config);
  Runner runner(TestPath(), 2, 64, /*max_logits=*/10);
  const auto expected = runner.Logits(tokens, {33});
  const float* rows = runner->Logits(5, 10);
  for (int t = 0; t < 10; ++t) {
    const float* row = rows + t * runner->logits_stride();
    EXPECT_EQ(std::vector<float>(row, row + config.vocab_size()), expected[5 + t]) << t;
  }
  const absl::Span<const float> last = runner->Logits();
  EXPECT_EQ(std::vector<float>(last.begin(), last.end()), expected[32]);
}

TEST(TransformerTest, RewindForgetsWhatFollows) {
  const pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kF32, Encoding::kF32, 5);
  const std::vector<int32_t> tokens = SomeTokens(20, config);
  Runner runner(TestPath(), 2, 32);
  const auto expected = runner.Logits(tokens, {20});
  runner->Rewind(8);
  EXPECT_EQ(runner->position(), 8);
  const auto again = runner.Logits({tokens.begin() + 8, tokens.end()}, {5});
  EXPECT_TRUE(std::equal(again.begin(), again.end(), expected.begin() + 8));
}

TEST(TransformerTest, RefusesWhatDoesNotFit) {
  const pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kQ8, Encoding::kQ8, 6);
  Runner runner(TestPath(), 1, 16);
  EXPECT_EQ(runner->Forward(SomeTokens(17, config)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(runner->position(), 0);
  EXPECT_EQ(runner->Forward({1, 99}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(runner->Forward({-1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(runner->Forward(SomeTokens(16, config)).ok());
  EXPECT_EQ(runner->Forward({0}).code(), absl::StatusCode::kResourceExhausted);
  const Model model = *Model::Open(TestPath());
  ThreadPool pool(1);
  for (const int64_t ctx : {int64_t{0}, int64_t{-5}, int64_t{513}}) {
    EXPECT_EQ(Transformer::Create(model, *ChooseKernels(), pool, ctx).status().code(),
              absl::StatusCode::kInvalidArgument)
        << ctx;
  }
}

TEST(TransformerTest, MemoryIsWhatTheFormulasSay) {
  pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kQ8, Encoding::kQ8, 7);
  for (const int64_t ctx : {1, 16, 100, 512}) {
    Runner runner(TestPath(), 1, ctx);
    const int64_t positions = (ctx + 127) / 128 * 128;  // of 8 elements, padded to 16
    EXPECT_EQ(runner->kv_cache_bytes(), 2 * 2 * positions * 2 * 16 * 2) << ctx;
    EXPECT_EQ(KvCache::Bytes(2, 2, 8, ctx), runner->kv_cache_bytes());
  }
  // x and delta (40 columns padded to 64), attention and q (48: 64), k and v (16: 32) or up with
  // gate (172: 192), 8 angles, 192 columns quantized; for a batch.
  const int64_t batch = Transformer::kBatchTokens;
  const int64_t per_token = 4 * (2 * 64 + 8 + 64 + 2 * 192) + 192 + 8 * 6;
  Runner runner(TestPath(), 1, 16);
  const int64_t rest = runner->scratch_bytes() - batch * per_token;
  EXPECT_GE(rest, 4 * 64 + 192 + 8 * 6 + 4 * 112);
  EXPECT_LE(rest, 4096);
}

TEST(ModelTest, TensorsThatAreMissingOrMisshapenAreNamed) {
  const struct {
    const char* message;
    void (*change)(pb::ModelConfig& config);
  } cases[] = {
      {"tensor layers.2.attn_norm is missing", [](pb::ModelConfig& c) { c.set_n_layers(3); }},
      {"tensor layers.0.wq has the shape [48, 40]; the configuration wants [80, 40]",
       [](pb::ModelConfig& c) { c.set_n_heads(10); }},
      {"tensor layers.0.w_gate has the shape [172, 40]; the configuration wants [171, 40]",
       [](pb::ModelConfig& c) { c.set_ffn_dim(171); }},
      {"tensor embedding has the shape [99, 40]; the configuration wants [98, 40]",
       [](pb::ModelConfig& c) { c.set_vocab_size(98); }},
      {"tensor embedding is multiplied, but its layout is not PANELS",
       [](pb::ModelConfig& c) { c.set_tied_embeddings(true); }},
      {"tensor layers.0.bq is missing", [](pb::ModelConfig& c) { c.set_architecture("qwen2"); }},
  };
  for (const auto& test : cases) {
    pb::ModelConfig claimed = SmallConfig();
    test.change(claimed);
    WriteRandomModel(TestPath(), SmallConfig(), Encoding::kQ8, Encoding::kQ8, 8, &claimed);
    const absl::Status status = Model::Open(TestPath()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), TestPath() + ": " + test.message);
  }
}

TEST(ModelTest, UnknownArchitecturesAreNamed) {
  pb::ModelConfig claimed = SmallConfig();
  claimed.set_architecture("mamba");
  WriteRandomModel(TestPath(), SmallConfig(), Encoding::kQ8, Encoding::kQ8, 9, &claimed);
  const absl::Status status = Model::Open(TestPath()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("\"mamba\""), absl::string_view::npos);
  EXPECT_NE(status.message().find("llama, mistral, qwen2"), absl::string_view::npos);
}

}  // namespace
}  // namespace quire
