// What every test of a damaged or hostile file asks for.
#ifndef QUIRE_CONVERT_TESTING_REFUSAL_H_
#define QUIRE_CONVERT_TESTING_REFUSAL_H_

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "convert/testing/allocation_meter.h"

namespace quire {

// Memory a parser may take: some to begin with, and a multiple of the input.
inline constexpr int64_t kBaseBytes = 2 << 20;
inline constexpr int64_t kBytesPerInputByte = 64;
// Also under a sanitizer on a busy machine.
inline constexpr double kMaxSeconds = 10;

// A file of the test that runs, gone when it ends with the test's folder.
inline std::string WriteTestFile(absl::string_view bytes) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  static int count = 0;
  std::string path = ::testing::TempDir() + "/" + test->test_suite_name() + "." + test->name() +
                     "." + std::to_string(count++);
  for (char& c : path) {
    if (c == '\\') c = '_';
  }
  std::ofstream(path, std::ios::binary).write(bytes.data(), bytes.size());
  return path;
}

// Calls open(path) and expects its status to have the code, a message of one line with all words
// and the path, and time and memory to be in bounds. Sanitizers keep freed memory, which is not
// counted.
template <typename Open>
void ExpectRefusedFile(const std::string& path, int64_t input_bytes, Open open,
                       absl::StatusCode code, const std::vector<std::string>& words) {
  const auto begin = std::chrono::steady_clock::now();
  const AllocationMeter meter;
  const absl::Status status = open(path).status();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_LE(meter.peak_bytes(), kBaseBytes + kBytesPerInputByte * input_bytes) << status;
  EXPECT_LE(seconds.count(), kMaxSeconds) << status;
  EXPECT_EQ(status.code(), code) << status;
  if (status.ok()) return;
  EXPECT_FALSE(absl::StrContains(status.message(), '\n')) << status;
  EXPECT_LE(status.message().size(), 1000u) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), path)) << status;
  for (const std::string& word : words) {
    EXPECT_TRUE(absl::StrContains(status.message(), word)) << "no '" << word << "' in: " << status;
  }
}

template <typename Open>
void ExpectRefused(absl::string_view bytes, Open open, absl::StatusCode code,
                   const std::vector<std::string>& words) {
  ExpectRefusedFile(WriteTestFile(bytes), bytes.size(), open, code, words);
}

}  // namespace quire

#endif  // QUIRE_CONVERT_TESTING_REFUSAL_H_
