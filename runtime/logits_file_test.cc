#include "runtime/logits_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "runtime/perplexity.h"

namespace quire {
namespace {

constexpr LogitsHeader kHeader = {50, 8, 2, 4};  // 2 chunks, 3 rows each

std::string TestPath() {
  const std::string path = testing::TempDir() + "/" +
                           testing::UnitTest::GetInstance()->current_test_info()->name() +
                           ".logits";
  unlink(path.c_str());
  return path;
}

std::vector<float> Logits(int row) {
  std::vector<float> logits(50);
  for (int i = 0; i < 50; ++i) logits[i] = 12 * std::sin(0.7f * i * (row + 1)) + row;
  return logits;
}

std::vector<double> LogProbabilities(const std::vector<float>& logits) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  std::vector<double> result;
  for (const float logit : logits) result.push_back(logit - std::log(sum));
  return result;
}

void WriteFile(const std::string& path) {
  std::vector<int32_t> tokens(16);
  for (int i = 0; i < 16; ++i) tokens[i] = 3 * i;
  auto writer = *LogitsFileWriter::Create(path, kHeader, tokens, false);
  for (int row = 0; row < 6; ++row) {
    std::vector<uint8_t> bytes(kHeader.row_bytes());
    EncodeLogitsRow(Logits(row), bytes.data());
    ASSERT_TRUE(writer->Append(bytes).ok());
  }
  struct stat found;
  EXPECT_NE(stat(path.c_str(), &found), 0) << "visible before it is whole";
  ASSERT_TRUE(writer->Finish().ok());
}

TEST(LogitsFile, GivesBackWhatWasWritten) {
  const std::string path = TestPath();
  WriteFile(path);
  const LogitsFile file = *LogitsFile::Open(path);
  EXPECT_EQ(file.header().vocab_size, 50u);
  EXPECT_EQ(file.header().rows(), 6);
  EXPECT_EQ(file.tokens()[15], 45);
  std::vector<uint8_t> rows(2 * kHeader.row_bytes());
  for (int first : {0, 3, 4}) {
    ASSERT_TRUE(file.Read(first, 2, absl::MakeSpan(rows)).ok());
    for (int i = 0; i < 2; ++i) {
      const std::vector<float> logits = Logits(first + i);
      const std::vector<double> wanted = LogProbabilities(logits);
      std::vector<float> found(50, NAN);
      const int32_t top =
          DecodeLogitsRow(rows.data() + i * kHeader.row_bytes(), absl::MakeSpan(found));
      EXPECT_EQ(top, std::max_element(logits.begin(), logits.end()) - logits.begin());
      for (int v = 0; v < 50; ++v) EXPECT_NEAR(found[v], wanted[v], 5e-4);
      EXPECT_NEAR(KlDivergence(found, logits), 0, 1e-7);
    }
  }
}

TEST(LogitsFile, UnlikelyTokensStayUnlikely) {
  std::vector<float> logits(50, -1000.0f), found(50);
  logits[7] = 3;
  logits[9] = -INFINITY;
  std::vector<uint8_t> row(kHeader.row_bytes());
  EncodeLogitsRow(logits, row.data());
  EXPECT_EQ(DecodeLogitsRow(row.data(), absl::MakeSpan(found)), 7);
  EXPECT_NEAR(found[7], 0, 1e-6);
  for (int v : {0, 9, 49}) EXPECT_NEAR(found[v], -30, 1e-3);
}

TEST(LogitsFile, DivergenceIsThatOfTheDefinition) {
  const std::vector<double> p = LogProbabilities(Logits(1)), q = LogProbabilities(Logits(4));
  double wanted = 0;
  for (int v = 0; v < 50; ++v) wanted += std::exp(p[v]) * (p[v] - q[v]);
  const std::vector<float> base(p.begin(), p.end());
  EXPECT_GT(wanted, 0.1);
  EXPECT_NEAR(KlDivergence(base, Logits(4)), wanted, 1e-5 * wanted);
}

TEST(LogitsFile, DamageIsNoticed) {
  const std::string path = TestPath();
  WriteFile(path);
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  const auto open_as = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return LogitsFile::Open(path).status().code();
  };
  const auto with_field = [&](int field, uint32_t value) {
    std::string bytes = whole;
    std::memcpy(&bytes[8 + 4 * field], &value, 4);
    return bytes;
  };
  EXPECT_EQ(open_as(whole), absl::StatusCode::kOk);
  EXPECT_EQ(open_as(whole.substr(0, 20)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(open_as("x" + whole.substr(1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(open_as(whole.substr(0, whole.size() - 1)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open_as(whole + "x"), absl::StatusCode::kDataLoss);
  for (const uint32_t value : {0u, 1u << 25, 0xffffffffu}) {
    for (const int field : {0, 1, 2}) {
      EXPECT_EQ(open_as(with_field(field, value)), absl::StatusCode::kInvalidArgument)
          << field << " " << value;
    }
  }
  EXPECT_EQ(open_as(with_field(3, 7)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(open_as(with_field(0, 51)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(open_as(with_field(2, 1 << 20)), absl::StatusCode::kDataLoss);
}

TEST(LogitsFile, NothingIsWrittenOverAndNothingLeftBehind) {
  const std::string path = TestPath();
  const std::vector<int32_t> tokens(16);
  {
    auto writer = *LogitsFileWriter::Create(path, kHeader, tokens, false);
  }
  struct stat found;
  EXPECT_NE(stat(path.c_str(), &found), 0);
  EXPECT_NE(stat((path + ".partial").c_str(), &found), 0);
  WriteFile(path);
  EXPECT_EQ(LogitsFileWriter::Create(path, kHeader, tokens, false).status().code(),
            absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace quire
