// Half floats, layouts, the thread pool and the command line.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "format/command_line.h"
#include "format/half.h"
#include "format/packed_layout.h"
#include "format/thread_pool.h"

namespace quire {
namespace {

TEST(Half, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = HalfToFloat(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(f))));
    } else {
      EXPECT_EQ(FloatToHalf(f), h);
    }
    const float b = Bfloat16ToFloat(static_cast<uint16_t>(h));
    if (!std::isnan(b)) {
      EXPECT_EQ(FloatToBfloat16(b), h);
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(FloatToHalf(65519.99f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), 0x3c00);
  EXPECT_EQ(FloatToHalf(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0);
  EXPECT_EQ(FloatToHalf(0x1.8p-25f), 1);
  EXPECT_EQ(FloatToHalf(-0x1p-24f), 0x8001);
  EXPECT_EQ(FloatToBfloat16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(FloatToBfloat16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_TRUE(
      std::isnan(Bfloat16ToFloat(FloatToBfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(PackedLayout, SizesAreThoseOfTheDocument) {
  const Geometry q4{Encoding::kQ4, Layout::kPanels, 4096, 4096};
  EXPECT_EQ(q4.unit_bytes(), 64 + 32 * (64 + 4 * 256));
  EXPECT_EQ(q4.units(), 256);
  EXPECT_EQ((Geometry{Encoding::kQ4_0, Layout::kPanels, 16, 4096}).bytes(), 32 * (128 + 1024));
  EXPECT_EQ((Geometry{Encoding::kQ8, Layout::kPanels, 17, 33}).bytes(), 2 * (64 + 2 * 512));
  EXPECT_EQ((Geometry{Encoding::kF16, Layout::kPanels, 1, 1}).bytes(), 16 * 32 * 2);
  EXPECT_EQ((Geometry{Encoding::kF32, Layout::kRows, 1, 7}).bytes(), 28);
  EXPECT_EQ((Geometry{Encoding::kQ8, Layout::kRows, 3, 64}).bytes(), 3 * (64 + 64));
  EXPECT_EQ((Geometry{Encoding::kQ4, Layout::kRows, 1, 64}).bytes(), 64 + 32);
  EXPECT_EQ((Geometry{Encoding::kQ5, Layout::kPanels, 16, 160}).bytes(), 64 + 2 * 64 + 5 * 320);
  EXPECT_EQ((Geometry{Encoding::kQ6, Layout::kPanels, 16, 160}).bytes(), 64 + 2 * 64 + 5 * 384);
  EXPECT_EQ((Geometry{Encoding::kQ4_1, Layout::kPanels, 16, 160}).bytes(), 5 * (64 + 256));
  EXPECT_EQ((Geometry{Encoding::kQ5, Layout::kRows, 2, 64}).bytes(), 2 * (64 + 2 * 20));
  EXPECT_EQ((Geometry{Encoding::kQ6, Layout::kRows, 2, 64}).bytes(), 2 * (64 + 2 * 24));
}

// One element at a time, by the sentences of the document.
TEST(PackedLayout, AnElementLiesWhereTheDocumentSays) {
  const Geometry g{Encoding::kQ4, Layout::kPanels, 32, 200};
  int8_t codebook[16];
  for (int i = 0; i < 16; ++i) codebook[i] = static_cast<int8_t>(7 * i - 50);
  std::vector<float> out(16 * g.padded_cols());
  for (const auto& [row, col] : std::vector<std::pair<int, int>>{
           {16, 0}, {17, 5}, {31, 31}, {20, 128}, {25, 199}, {19, 150}}) {
    std::vector<uint8_t> data(g.bytes(), 0);
    const int r = row - 16, group = col / 32, k = col % 32, block = group / 4;
    uint8_t* panel = data.data() + g.unit_bytes();
    const float row_scale = 0.5f;
    std::memcpy(panel + 4 * r, &row_scale, 4);
    uint8_t* p = panel + 64 + block * (64 + 4 * 256);
    const int groups_here = block == 0 ? 4 : 3;  // 200 columns are 7 groups
    p[(group % 4) * 16 + r] = static_cast<uint8_t>(-3);
    uint8_t* codes = p + (groups_here * 16 + 63) / 64 * 64 + (group % 4) * 256;
    codes[k % 16 / 4 * 64 + 4 * r + k % 4] = k < 16 ? 0x0b : 0xb0;
    DecodeUnit(g, codebook, data.data(), 1, out.data());
    EXPECT_EQ(out[r * g.padded_cols() + col], 0.5f * -3 * (7 * 11 - 50));
  }
}

// Codes of 5 and 6 bits, in both layouts.
TEST(PackedLayout, HighBitsLieInPlanes) {
  int8_t codebook[32];
  for (int i = 0; i < 32; ++i) codebook[i] = static_cast<int8_t>(7 * i - 100);
  for (Layout layout : {Layout::kPanels, Layout::kRows}) {
    const bool panels = layout == Layout::kPanels;
    const int line = panels ? 64 : 4, row = panels ? 9 : 0;
    for (int k = 0; k < 32; ++k) {
      const Geometry q5{Encoding::kQ5, layout, 16, 32}, q6{Encoding::kQ6, layout, 16, 32};
      std::vector<uint8_t> five(q5.bytes(), 0), six(q6.bytes(), 0);
      const float row_scale = 0.5f;
      for (std::vector<uint8_t>* data : {&five, &six}) {
        std::memcpy(data->data() + 4 * row, &row_scale, 4);
        (*data)[(panels ? 64 : 4) + row] = 3;
        (*data)[(panels ? 128 : 64) + k % 16 / 4 * line + 4 * row + k % 4] = k < 16 ? 0x0b : 0xb0;
      }
      const int planes = (panels ? 128 : 64) + 4 * line + 4 * row + k % 4;
      five[planes] = static_cast<uint8_t>(1 << k / 4);
      six[planes + k / 16 * line] = static_cast<uint8_t>(2 << k % 16 / 4 * 2);
      std::vector<float> out(q5.unit_rows() * 32);
      DecodeUnit(q5, codebook, five.data(), 0, out.data());
      EXPECT_EQ(out[row * 32 + k], 1.5f * (7 * 0x1b - 100)) << k;
      EXPECT_EQ(out[row * 32 + (k + 1) % 32], 1.5f * -100) << k;
      DecodeUnit(q6, nullptr, six.data(), 0, out.data());
      EXPECT_EQ(out[row * 32 + k], 1.5f * (0x2b - 32)) << k;
      EXPECT_EQ(out[row * 32 + (k + 1) % 32], 1.5f * -32) << k;
    }
  }
}

TEST(ThreadPool, RunsEveryThreadAndEveryIndexOnce) {
  for (int n : {1, 2, 5}) {
    ThreadPool pool(n);
    ASSERT_EQ(pool.size(), n);
    for (int round = 0; round < 300; ++round) {
      std::vector<std::atomic<int>> calls(n);
      pool.Run([&](int thread) { calls[thread].fetch_add(1); });
      for (auto& c : calls) ASSERT_EQ(c.load(), 1);
      std::vector<std::atomic<int>> items(37);
      pool.ParallelFor(37, [&](int64_t i, int) { items[i].fetch_add(1); });
      for (auto& c : items) ASSERT_EQ(c.load(), 1);
      std::vector<std::atomic<int>> parts(1000);
      std::atomic<int> stretches = 0;
      const auto add = [&](int64_t begin, int64_t end, int) {
        stretches.fetch_add(1);
        for (int64_t i = begin; i < end; ++i) parts[i].fetch_add(1);
      };
      pool.ParallelRanges(parts.size(), add, [&](int thread) {
        EXPECT_LT(thread, n);
        return absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(parts.data()), 1000);
      });
      for (auto& c : parts) ASSERT_EQ(c.load(), 1);
      ASSERT_GE(stretches.load(), 1);
      ASSERT_LT(stretches.load(), 100 * n);
      if (round % 100 == 0) usleep(3000);  // long enough that threads sleep
    }
  }
}

bool Parse(std::vector<std::string> words, absl::Span<const Flag> flags,
           std::vector<std::string>* positional, int* code) {
  std::vector<char*> args;
  for (std::string& word : words) args.push_back(word.data());
  constexpr Verb kVerb = {"test", "SRC", "tests.", "quire test x", 1, 1};
  return ParseCommandLine(kVerb, flags, args, positional, code);
}

TEST(CommandLine, ParsesEachKind) {
  bool json = false;
  int64_t n = 3;
  double temp = 0;
  std::string p;
  ByteSize size;
  std::vector<std::string> keep, positional;
  int code;
  const std::vector<Flag> flags = {{"--json", &json, ""}, {"-n", &n, ""},
                                   {"--temp", &temp, ""}, {"-p", &p, ""},
                                   {"--size", &size, ""}, {"--keep", &keep, ""}};
  ASSERT_TRUE(Parse({"--json", "-n", "7", "a", "--temp=0.5", "-p", "-dash", "--size", "512MiB",
                     "--keep", "x", "--keep=y"},
                    flags, &positional, &code));
  EXPECT_TRUE(json);
  EXPECT_EQ(n, 7);
  EXPECT_EQ(temp, 0.5);
  EXPECT_EQ(p, "-dash");
  EXPECT_EQ(size.bytes, 512 << 20);
  EXPECT_EQ(keep, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(positional, std::vector<std::string>{"a"});
  for (const auto& [text, bytes] : std::vector<std::pair<std::string, int64_t>>{
           {"2GB", 2000000000}, {"1.5KiB", 1536}, {"77", 77}}) {
    positional.clear();
    ASSERT_TRUE(Parse({"--size", text, "a"}, flags, &positional, &code));
    EXPECT_EQ(size.bytes, bytes);
  }
}

TEST(CommandLine, UsageErrorsExitWith2) {
  int64_t n = 0;
  bool json = false;
  ByteSize size;
  const std::vector<Flag> flags = {
      {"-n", &n, "", {1, 10}}, {"--json", &json, ""}, {"--size", &size, "", kMemoryBudgetRange}};
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"a", "b"},
                                             {"a", "--what"},
                                             {"a", "-n"},
                                             {"a", "-n", "x"},
                                             {"a", "-n", "0"},
                                             {"a", "-n", "11"},
                                             {"a", "-n", "99999999999999999999"},
                                             {"a", "--size", "8388607"},
                                             {"a", "--json=1"},
                                             {"a", "--size", "12XB"},
                                             {"a", "--size", "-1"}}) {
    std::vector<std::string> positional;
    int code = -1;
    EXPECT_FALSE(Parse(words, flags, &positional, &code));
    EXPECT_EQ(code, kExitUsage);
  }
  std::vector<std::string> positional;
  int code = -1;
  EXPECT_TRUE(Parse({"a", "-n", "10", "--size", "8MiB"}, flags, &positional, &code));
  EXPECT_FALSE(Parse({"--help"}, flags, &positional, &code));
  EXPECT_EQ(code, kExitOk);
}

}  // namespace
}  // namespace quire
