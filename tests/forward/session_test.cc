#include "runtime/session.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/forward/random_model.h"

namespace quire {
namespace {

std::string TestPath() {
  return testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name() +
         ".quire";
}

TEST(SessionTest, APromptThatBeginsAlikeIsNotComputedAgain) {
  const pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kQ4, Encoding::kQ8, 10);
  const std::vector<int32_t> prompt = SomeTokens(30, config);
  const auto run = [&](Session& session, const std::vector<int32_t>& tokens) {
    Sampler sampler(SamplerOptions{});
    return *session.Generate(tokens, 10, {}, sampler, [](int32_t) {});
  };
  const std::unique_ptr<Session> session = *Session::Open(TestPath(), {});
  const Generation first = run(*session, prompt);
  EXPECT_EQ(first.prefilled, 30);
  ASSERT_EQ(first.tokens.size(), 10u);
  EXPECT_EQ(run(*session, prompt).tokens, first.tokens);

  std::vector<int32_t> longer = prompt;
  longer.insert(longer.end(), first.tokens.begin(), first.tokens.begin() + 5);
  longer.push_back((first.tokens[5] + 1) % 99);
  const Generation second = run(*session, longer);
  EXPECT_EQ(second.prefilled, 1);
  const std::unique_ptr<Session> fresh = *Session::Open(TestPath(), {});
  const Generation all = run(*fresh, longer);
  EXPECT_EQ(all.prefilled, 36);
  EXPECT_EQ(second.tokens, all.tokens);
}

TEST(SessionTest, StopsAtEndOfTextAtTheLimitAndWhereTheContextIsFull) {
  const pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kQ8, Encoding::kQ8, 11);
  SessionOptions options;
  options.ctx = 16;
  const std::unique_ptr<Session> session = *Session::Open(TestPath(), options);
  Sampler sampler(SamplerOptions{});
  const std::vector<int32_t> prompt = SomeTokens(10, config);
  std::vector<int32_t> heard;
  const auto listen = [&](int32_t id) { heard.push_back(id); };

  const Generation full = *session->Generate(prompt, 100, {}, sampler, listen);
  EXPECT_EQ(full.stopped, StopReason::kContext);
  EXPECT_EQ(full.tokens.size(), 7u);  // the last one needs no place in the cache
  EXPECT_EQ(heard, full.tokens);
  const Generation limited = *session->Generate(prompt, 3, {}, sampler, listen);
  EXPECT_EQ(limited.stopped, StopReason::kTokens);
  EXPECT_EQ(limited.tokens.size(), 3u);
  const Generation ended = *session->Generate(prompt, 100, {full.tokens[2]}, sampler, listen);
  EXPECT_EQ(ended.stopped, StopReason::kEndOfText);
  EXPECT_EQ(ended.tokens.back(), full.tokens[2]);
  EXPECT_LE(ended.tokens.size(), 3u);
  EXPECT_TRUE(session->Generate(prompt, 0, {}, sampler, listen)->tokens.empty());

  EXPECT_EQ(session->Generate({}, 1, {}, sampler, listen).status().code(),
            absl::StatusCode::kInvalidArgument);
  const absl::Status status =
      session->Generate(SomeTokens(17, config), 1, {}, sampler, listen).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "the prompt is 17 tokens long, the context 16; --ctx takes up to 512");
}

TEST(SessionTest, AFileThatWasCutInItsLastPageIsNoticed) {
  const pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kQ8, Encoding::kQ8, 12);
  const std::unique_ptr<Session> session = *Session::Open(TestPath(), {});
  Sampler sampler(SamplerOptions{});
  const int64_t bytes = session->model().file().mapping().size();
  ASSERT_EQ(truncate(TestPath().c_str(), bytes - 1), 0);
  EXPECT_EQ(session->Generate({1}, 1, {}, sampler, [](int32_t) {}).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(SessionTest, AFileThatWasCutShortEndsTheProcessWithALine) {
  const pb::ModelConfig config = SmallConfig();
  WriteRandomModel(TestPath(), config, Encoding::kQ8, Encoding::kQ8, 13);
  EXPECT_EXIT(
      {
        const std::unique_ptr<Session> session = *Session::Open(TestPath(), {});
        if (truncate(TestPath().c_str(), 4096) != 0) _exit(3);
        Sampler sampler(SamplerOptions{});
        (void)session->Generate({1}, 1, {}, sampler, [](int32_t) {});
        _exit(0);
      },
      testing::ExitedWithCode(1), "quire: .*\\.quire: a page of the file could not be read");
}

}  // namespace
}  // namespace quire
