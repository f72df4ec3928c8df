// Weights that are streamed, wholly or in part, are the same weights.
#include "runtime/layer_feed.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "runtime/footprint/residency.h"
#include "runtime/session.h"
#include "tests/forward/random_model.h"

namespace quire {
namespace {

std::string TestPath() {
  return testing::TempDir() + "/feed_" +
         testing::UnitTest::GetInstance()->current_test_info()->name() + ".quire";
}

// About 8 MB in q4.
pb::ModelConfig ManyLayers() {
  pb::ModelConfig config = SmallConfig();
  config.set_hidden_dim(256);
  config.set_n_heads(8);
  config.set_n_kv_heads(4);
  config.set_head_dim(32);
  config.set_ffn_dim(704);
  config.set_n_layers(20);
  return config;
}

std::unique_ptr<Session> Open(int64_t resident) {
  SessionOptions options;
  options.resident.bytes = resident;
  options.threads = 2;
  return *Session::Open(TestPath(), options);
}

// Logits after a prompt of more than one batch, and after tokens one by one.
std::vector<float> Logits(Session& session, const pb::ModelConfig& config) {
  std::vector<float> all;
  const auto add = [&](const std::vector<int32_t>& tokens) {
    const absl::Status status = session.transformer().Forward(tokens);
    EXPECT_TRUE(status.ok()) << status;
    const absl::Span<const float> logits = session.transformer().Logits();
    all.insert(all.end(), logits.begin(), logits.end());
  };
  add(SomeTokens(150, config));
  for (const int32_t id : {5, 6, 7, 8}) add({id});
  return all;
}

TEST(PlanResidence, KeepsWhatFitsSpreadEvenlyAndMoreWithMoreRoom) {
  const pb::ModelConfig config = ManyLayers();
  WriteRandomModel(TestPath(), config, Encoding::kQ4, Encoding::kQ8, 3);
  const Model model = *Model::Open(TestPath());
  const Residence all = KeepAll(model);
  EXPECT_EQ(all.bytes(), model.decode_bytes());
  EXPECT_TRUE(PlanResidence(model, all.bytes()).whole());

  int64_t largest = 0, layers_bytes = 0;
  for (const auto member : kLayerMatrices) {
    largest = std::max(largest, SlotBytes(model.layers()[0].*member));
    layers_bytes += 20 * (model.layers()[0].*member).geometry.bytes();
  }
  Residence before = PlanResidence(model, 1);
  EXPECT_EQ(before.streamed_bytes, layers_bytes);
  EXPECT_EQ(before.streamed_matrices, 140);
  for (int64_t room = before.bytes(); room < all.bytes(); room += 50000) {
    const Residence plan = PlanResidence(model, room);
    ASSERT_FALSE(plan.whole());
    EXPECT_LE(plan.bytes(), room);
    EXPECT_GT(plan.bytes(), room - 3 * largest);  // one matrix less in memory, and in both slots
    EXPECT_EQ(plan.kept_bytes + plan.streamed_bytes, all.kept_bytes);
    std::vector<int64_t> slots;  // of whole layers
    int64_t step_slot = 0;
    for (size_t l = 0; l < plan.streamed.size(); ++l) {
      int64_t slot = 0, steps[kLayerSteps] = {};
      for (size_t m = 0; m < kLayerMatrices.size(); ++m) {
        if (!plan.streamed[l][m]) continue;
        const int64_t bytes = SlotBytes(model.layers()[l].*kLayerMatrices[m]);
        slot += bytes;
        int64_t& step = steps[static_cast<int>(kStepOfMatrix[m])];
        step_slot = std::max(step_slot, step += bytes);
        EXPECT_TRUE(before.streamed[l][m]);  // more room keeps a superset
      }
      slots.push_back(slot);
    }
    const auto [least, most] = std::minmax_element(slots.begin(), slots.end());
    EXPECT_EQ(step_slot, plan.slot_bytes);
    EXPECT_LE(*most - *least, largest);
    // Of any five layers in a row the share that is streamed is nearly the same.
    int64_t sum = 0, total = 0;
    for (const int64_t slot : slots) total += slot;
    for (size_t l = 0; l < slots.size(); ++l) {
      sum += slots[l] - (l >= 5 ? slots[l - 5] : 0);
      if (l >= 4) {
        EXPECT_NEAR(sum, total / 4, 1.6 * largest) << "layers to " << l;
      }
    }
    before = plan;
  }
}

TEST(LayerFeed, LogitsAreTheSameHoweverMuchIsStreamed) {
  const pb::ModelConfig config = ManyLayers();
  WriteRandomModel(TestPath(), config, Encoding::kQ4, Encoding::kQ8, 4);
  const std::unique_ptr<Session> mapped = Open(0);
  const std::vector<float> want = Logits(*mapped, config);
  EXPECT_EQ(mapped->feed().Describe(), "");
  EXPECT_EQ(mapped->feed().ring_bytes(), 0);
  const int64_t all = mapped->model().decode_bytes();
  for (const int64_t resident : {int64_t{1}, all / 4, all / 2, all - 200000, all - 1, all}) {
    const std::unique_ptr<Session> session = Open(resident);
    EXPECT_EQ(Logits(*session, config), want) << resident;
    EXPECT_EQ(session->feed().residence().whole(), resident == all);
    EXPECT_GE(session->feed().ring_bytes(), 2 * session->feed().residence().slot_bytes);
    EXPECT_LE(session->feed().ring_bytes(), 2 * session->feed().residence().slot_bytes + (2 << 20));
  }
}

TEST(LayerFeed, OtherEncodingsAndATiedEmbedding) {
  for (const Encoding encoding : {Encoding::kF32, Encoding::kBF16, Encoding::kQ8}) {
    pb::ModelConfig config = SmallConfig();
    config.set_tied_embeddings(true);
    WriteRandomModel(TestPath(), config, encoding, encoding, 5);
    const std::vector<float> want = Logits(*Open(0), config);
    EXPECT_EQ(Logits(*Open(1), config), want);
  }
}

TEST(LayerFeed, WhatIsKeptStaysAndWhatIsStreamedStaysOut) {
  const pb::ModelConfig config = ManyLayers();
  WriteRandomModel(TestPath(), config, Encoding::kQ4, Encoding::kQ8, 6);
  const std::unique_ptr<Session> session = Open(Open(0)->model().decode_bytes() / 2);
  Logits(*session, config);
  const MappedFile& file = session->model().file().mapping();
  const Residency residency = *Residency::Read(file);
  int64_t kept = 0, kept_cached = 0, streamed_cached = 0;
  for (size_t l = 0; l < session->model().layers().size(); ++l) {
    for (size_t m = 0; m < kLayerMatrices.size(); ++m) {
      const Matrix& matrix = session->model().layers()[l].*kLayerMatrices[m];
      const int64_t begin = matrix.data - file.data(), bytes = matrix.geometry.bytes();
      const int64_t cached = residency.BytesIn(begin, begin + bytes);
      if (session->feed().residence().streamed[l][m]) {
        streamed_cached += cached;
      } else {
        kept += bytes;
        kept_cached += cached;
      }
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_EQ(kept_cached, kept);
  if (streamed_cached == session->feed().residence().streamed_bytes) {
    GTEST_SKIP() << "this file system cannot drop its page cache";
  }
  EXPECT_EQ(streamed_cached, 0);
}

TEST(LayerFeed, AFileThatIsCutEndsTheGenerationWithAnError) {
  const pb::ModelConfig config = ManyLayers();
  WriteRandomModel(TestPath(), config, Encoding::kQ4, Encoding::kQ8, 7);
  const std::unique_ptr<Session> session = Open(1);
  ASSERT_TRUE(session->transformer().Forward({1, 2, 3}).ok());
  // What stays mapped is touched still, so the cut is in the middle of what does not.
  const Model& model = session->model();
  const int64_t last = model.layers().back().w_down.data - model.file().mapping().data();
  std::vector<char> rest(model.file().mapping().size() - last);
  FILE* f = std::fopen(TestPath().c_str(), "rb");
  std::fseek(f, last, SEEK_SET);
  ASSERT_EQ(std::fread(rest.data(), 1, rest.size(), f), rest.size());
  std::fclose(f);
  ASSERT_EQ(truncate(TestPath().c_str(), last), 0);

  absl::Status status;
  for (int i = 0; i < 3 && status.ok(); ++i) status = session->transformer().Forward({4});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("the file ends at byte "), std::string::npos) << status;
  const int64_t position = session->transformer().position();

  // A file that is whole again goes on.
  f = std::fopen(TestPath().c_str(), "r+b");
  std::fseek(f, last, SEEK_SET);
  ASSERT_EQ(std::fwrite(rest.data(), 1, rest.size(), f), rest.size());
  std::fclose(f);
  status = session->transformer().Forward({4});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(session->transformer().position(), position + 1);
}

}  // namespace
}  // namespace quire
