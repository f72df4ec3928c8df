#include "quantize/calibration_file.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace quire {
namespace {

class CalibrationFileTest : public testing::TestWithParam<bool> {
 protected:
  static pb::ModelConfig Config() {
    pb::ModelConfig config;
    config.set_n_layers(2);
    config.set_hidden_dim(40);
    config.set_n_heads(3);
    config.set_head_dim(20);
    config.set_ffn_dim(150);
    return config;
  }
  static std::vector<float> Squares(int64_t n, int seed) {
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = 0.5f * static_cast<float>(seed + i % 5);
    return values;
  }
  static SymmetricMatrix Moments(int64_t n, int seed) {
    SymmetricMatrix h(n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = i; j < n; ++j) h.At(i, j) = static_cast<float>(seed * 1000 + i - 3 * j);
    }
    return h;
  }

  // Writes two layers and returns the file's bytes.
  std::string Write() {
    unlink(path_.c_str());
    const CalibrationHeader header = CalibrationHeader::Of(Config(), GetParam(), 77);
    auto writer = *CalibrationWriter::Create(path_, header, false);
    for (int layer = 0; layer < 2; ++layer) {
      for (int input = 0; input < kInputsOfLayer; ++input) {
        const int64_t n = header.Columns(input);
        const SymmetricMatrix moments = Moments(n, layer + input);
        EXPECT_TRUE(
            writer->Append(Squares(n, layer + input), GetParam() ? &moments : nullptr).ok());
      }
    }
    EXPECT_NE(access(path_.c_str(), F_OK), 0) << "seen before it is whole";
    EXPECT_TRUE(writer->Finish().ok());
    return *ReadWholeFile(path_, 10 << 20);
  }
  void Put(const std::string& bytes) { std::ofstream(path_, std::ios::binary) << bytes; }

  // The first error of opening these bytes and reading all of them.
  absl::Status ReadAll(const std::string& bytes) {
    Put(bytes);
    const absl::StatusOr<CalibrationFile> file = CalibrationFile::Open(path_);
    if (!file.ok()) return file.status();
    if (absl::Status status = file->CheckFits(Config()); !status.ok()) return status;
    for (int layer = 0; layer < 2; ++layer) {
      for (int input = 0; input < kInputsOfLayer; ++input) {
        std::vector<float> squares;
        SymmetricMatrix moments(0);
        absl::Status status =
            file->Read(layer, input, &squares, file->header().has_moments ? &moments : nullptr);
        if (!status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  const std::string path_ =
      testing::TempDir() + "/calibration_file_test" + (GetParam() ? "1" : "0");
};
INSTANTIATE_TEST_SUITE_P(All, CalibrationFileTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Moments" : "Squares"; });

TEST_P(CalibrationFileTest, GivesBackWhatWasWritten) {
  Write();
  const CalibrationFile file = *CalibrationFile::Open(path_);
  EXPECT_EQ(file.header().has_moments, GetParam());
  EXPECT_EQ(file.header().tokens, 77u);
  EXPECT_TRUE(file.CheckFits(Config()).ok());
  for (int layer = 1; layer >= 0; --layer) {
    for (int input = 0; input < kInputsOfLayer; ++input) {
      const int64_t n = file.header().Columns(input);
      std::vector<float> squares;
      SymmetricMatrix moments(0);
      ASSERT_TRUE(file.Read(layer, input, &squares, GetParam() ? &moments : nullptr).ok());
      EXPECT_EQ(squares, Squares(n, layer + input));
      ASSERT_TRUE(file.Read(layer, input, &squares, nullptr).ok());
      EXPECT_EQ(squares, Squares(n, layer + input));
      if (!GetParam()) continue;
      const SymmetricMatrix expected = Moments(n, layer + input);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = i; j < n; ++j) ASSERT_EQ(moments.At(i, j), expected.At(i, j));
      }
    }
  }
}

TEST_P(CalibrationFileTest, EveryFlippedBitIsNoticed) {
  const std::string whole = Write();
  ASSERT_TRUE(ReadAll(whole).ok());
  for (size_t i = 0; i < whole.size(); i += i < 200 ? 1 : whole.size() / 97) {
    std::string damaged = whole;
    damaged[i] ^= static_cast<char>(1 << i % 8);
    const absl::Status status = ReadAll(damaged);
    const absl::StatusCode expected = i < 8    ? absl::StatusCode::kInvalidArgument
                                      : i < 12 ? absl::StatusCode::kUnimplemented
                                               : absl::StatusCode::kDataLoss;
    EXPECT_EQ(status.code(), expected) << "byte " << i << ": " << status;
    EXPECT_EQ(status.message().rfind(path_ + ": ", 0), 0u) << status;
  }
}

TEST_P(CalibrationFileTest, EveryTruncationIsNoticed) {
  const std::string whole = Write();
  for (size_t n = 0; n < whole.size(); n += n < 100 ? 1 : whole.size() / 53) {
    const absl::Status status = ReadAll(whole.substr(0, n));
    EXPECT_EQ(status.code(),
              n < 64 ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kDataLoss)
        << n << ": " << status;
  }
  EXPECT_EQ(ReadAll(whole + "x").code(), absl::StatusCode::kDataLoss);
}

TEST_P(CalibrationFileTest, HeadersThatLieAreRefusedBeforeAnythingIsAllotted) {
  const std::string whole = Write();
  // A field of the header, changed, with a checksum that fits.
  const auto with = [&](size_t offset, uint32_t value) {
    std::string bytes = whole;
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    const uint64_t sum = XXH3_64bits(bytes.data(), 56);
    std::memcpy(bytes.data() + 56, &sum, sizeof sum);
    return bytes;
  };
  for (const size_t field : {16, 20, 24, 28}) {  // n_layers, hidden_dim, q_dim, ffn_dim
    for (const uint32_t value : {0u, 1u << 21, 0x7fffffffu, 0xffffffffu}) {
      EXPECT_EQ(ReadAll(with(field, value)).code(), absl::StatusCode::kInvalidArgument)
          << field << " " << value;
    }
    EXPECT_EQ(ReadAll(with(field, 60000)).code(), absl::StatusCode::kDataLoss) << field;
  }
  EXPECT_EQ(ReadAll(with(12, 2)).code(), absl::StatusCode::kInvalidArgument);  // flags
  EXPECT_EQ(ReadAll(with(32, 0)).code(), absl::StatusCode::kInvalidArgument);  // tokens
  EXPECT_EQ(ReadAll(with(40, 1)).code(), absl::StatusCode::kInvalidArgument);  // zeros
}

TEST_P(CalibrationFileTest, ValuesThatNoMeasurementGivesAreRefused) {
  for (const float value : {-1.0f, NAN, INFINITY}) {
    std::string bytes = Write();
    const CalibrationHeader header = CalibrationHeader::Of(Config(), GetParam(), 77);
    std::memcpy(bytes.data() + 64 + 4 * 3, &value, sizeof value);
    const int64_t n =
        header.Columns(0) * 4 + (GetParam() ? SymmetricMatrix::Bytes(header.Columns(0)) : 0);
    const uint64_t sum = XXH3_64bits(bytes.data() + 64, n);
    std::memcpy(bytes.data() + 64 + n, &sum, sizeof sum);
    EXPECT_EQ(ReadAll(bytes).code(), absl::StatusCode::kInvalidArgument) << value;
  }
}

TEST_P(CalibrationFileTest, AnotherModelsFileIsRefused) {
  Write();
  const CalibrationFile file = *CalibrationFile::Open(path_);
  void (*const changes[])(pb::ModelConfig&) = {[](pb::ModelConfig& c) { c.set_n_layers(3); },
                                               [](pb::ModelConfig& c) { c.set_hidden_dim(41); },
                                               [](pb::ModelConfig& c) { c.set_n_heads(4); },
                                               [](pb::ModelConfig& c) { c.set_ffn_dim(151); }};
  for (const auto change : changes) {
    pb::ModelConfig other = Config();
    change(other);
    EXPECT_EQ(file.CheckFits(other).code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace quire
