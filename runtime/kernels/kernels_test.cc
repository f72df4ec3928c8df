// Scalar against independent arithmetic in double; every other table against scalar, bit for bit.
#include "runtime/kernels/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "format/half.h"
#include "format/packed_layout.h"

namespace quire {
#ifdef __x86_64__
const KernelTable& ModelledAmxKernels();
#endif
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

using Random = std::mt19937;

std::vector<float> Normal(Random& random, int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

// The same value, or both NaN. Zeros compare by sign too.
bool SameBits(float a, float b) {
  return FloatToBits(a) == FloatToBits(b) || (std::isnan(a) && std::isnan(b));
}

void ExpectSame(const std::vector<float>& want, const std::vector<float>& got,
                const std::string& what) {
  ASSERT_EQ(want.size(), got.size());
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(SameBits(want[i], got[i]))
        << what << ": element " << i << " is " << got[i] << ", want " << want[i];
  }
}

// Exactly as much memory as the layout says, so that a sanitizer sees every byte read beyond it.
struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> bias;
  Quantized(int64_t groups, int64_t n_tokens)
      : q(groups * n_tokens * kGroupColumns, 99),
        scale(groups * n_tokens, kPoison),
        bias(groups * n_tokens, 1 << 30) {}
  QuantizedActivations view() { return {q.data(), scale.data(), bias.data()}; }
};

struct Problem {
  Geometry geometry;
  std::vector<uint8_t> panels;
  int8_t codebook[kMaxCodebookSize];
  std::vector<float> x;
  int64_t n_tokens;
  Quantized xq;

  int64_t y_stride() const { return geometry.units() * kPanelRows + 3; }
  MatmulArgs Args(std::vector<float>* y) {
    y->assign(n_tokens * y_stride(), kPoison);
    return {panels.data(),    geometry.unit_bytes(),
            geometry.units(), geometry.groups(),
            codebook,         xq.view(),
            x.data(),         geometry.padded_cols(),
            n_tokens,         y->data(),
            y_stride()};
  }
};

enum class Fill { kRandom, kLowest, kHighest };

// Any bytes are codes; scales are made finite.
Problem MakeProblem(Random& random, Encoding encoding, int64_t rows, int64_t groups,
                    int64_t n_tokens, Fill fill) {
  const EncodingInfo& info = Info(encoding);
  Problem p{{encoding, Layout::kPanels, rows, groups * kGroupColumns},
            {},
            {},
            {},
            n_tokens,
            Quantized(groups, n_tokens)};
  p.panels.resize(p.geometry.bytes());
  for (int i = 0; i < kMaxCodebookSize; ++i) {
    p.codebook[i] = static_cast<int8_t>(fill == Fill::kLowest    ? -128
                                        : fill == Fill::kHighest ? 127
                                                                 : random());
  }
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (uint8_t& byte : p.panels) {
    byte =
        static_cast<uint8_t>(fill == Fill::kRandom   ? random()
                             : fill == Fill::kLowest ? (encoding == Encoding::kQ8 ? 0x80 : 0)
                                                     : (encoding == Encoding::kQ8 ? 0x7f : 0xff));
  }
  auto put16 = [](uint8_t* to, uint16_t value) { std::memcpy(to, &value, 2); };
  auto put32 = [](uint8_t* to, float value) { std::memcpy(to, &value, 4); };
  for (int64_t unit = 0; unit < p.geometry.units(); ++unit) {
    uint8_t* at = p.panels.data() + unit * p.geometry.unit_bytes();
    if (info.row_scale) {
      for (int r = 0; r < kPanelRows; ++r, at += 4) put32(at, uniform(random));
    }
    for (int64_t first = 0; first < groups; first += kBlockGroups) {
      const int n = static_cast<int>(std::min<int64_t>(kBlockGroups, groups - first));
      if (info.scale_bytes >= 2) {
        for (int i = 0; i < n * kPanelRows * info.scale_bytes / 2; ++i)
          put16(at + 2 * i, FloatToHalf(uniform(random)));
      }
      if (info.scale_bytes == 0) {
        for (int64_t i = 0; i < p.geometry.block_bytes(n); i += info.code_bits / 8) {
          const float value = uniform(random);
          if (encoding == Encoding::kF32) put32(at + i, value);
          if (encoding == Encoding::kF16) put16(at + i, FloatToHalf(value));
          if (encoding == Encoding::kBF16) put16(at + i, FloatToBfloat16(value));
        }
      }
      at += p.geometry.block_bytes(n);
    }
  }
  p.x = Normal(random, n_tokens * groups * kGroupColumns);
  if (fill != Fill::kRandom) {
    for (float& v : p.x) v = std::copysign(1.0f, fill == Fill::kLowest ? 1.0f : v);  // q is +-127
  }
  ScalarKernels().quantize(p.x.data(), p.geometry.padded_cols(), n_tokens, 0, n_tokens, groups,
                           p.xq.view());
  return p;
}

std::string Describe(const Problem& p) {
  return std::string(Info(p.geometry.encoding).name) + " " + std::to_string(p.geometry.rows) +
         " rows " + std::to_string(p.geometry.groups()) + " groups " + std::to_string(p.n_tokens) +
         " tokens";
}

constexpr int64_t kRowCounts[] = {1, 15, 16, 17, 48};
constexpr int64_t kGroupCounts[] = {1, 3, 4, 5, 18, 43};
constexpr int64_t kTokenCounts[] = {1, 2, 3, 7, 15, 16, 17, 33};

TEST(ScalarTest, MatmulMeansWhatTheLayoutSays) {
  Random random(1);
  for (const EncodingInfo& info : kEncodings) {
    for (int64_t groups : kGroupCounts) {
      Problem p = MakeProblem(random, info.encoding, 17, groups, 3, Fill::kRandom);
      std::vector<float> y;
      const MatmulArgs args = p.Args(&y);
      ScalarKernels().matmul[static_cast<int>(info.encoding) - 1](args);
      std::vector<float> w(kPanelRows * p.geometry.padded_cols());
      for (int64_t unit = 0; unit < p.geometry.units(); ++unit) {
        DecodeUnit(p.geometry, p.codebook, p.panels.data(), unit, w.data());
        for (int64_t t = 0; t < p.n_tokens; ++t) {
          for (int r = 0; r < kPanelRows; ++r) {
            double sum = 0, magnitude = 0;
            for (int64_t c = 0; c < p.geometry.cols; ++c) {
              const int64_t at = c / kGroupColumns * p.n_tokens + t;
              const double x =
                  info.scale_bytes == 0
                      ? p.x[t * p.geometry.cols + c]
                      : double{p.xq.scale[at]} * p.xq.q[at * kGroupColumns + c % kGroupColumns];
              const double term = x * w[r * p.geometry.padded_cols() + c];
              sum += term;
              magnitude += std::abs(term);
            }
            ASSERT_NEAR(y[t * p.y_stride() + unit * kPanelRows + r], sum, 1e-5 * magnitude)
                << Describe(p);
          }
        }
      }
    }
  }
}

TEST(ScalarTest, QuantizesToTheNearestOf255Steps) {
  Random random(2);
  const int64_t groups = 5, n_tokens = 3;
  const std::vector<float> x = Normal(random, groups * kGroupColumns * n_tokens);
  Quantized out(groups, n_tokens);
  ScalarKernels().quantize(x.data(), groups * kGroupColumns, n_tokens, 0, n_tokens, groups,
                           out.view());
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t t = 0; t < n_tokens; ++t) {
      const int64_t at = g * n_tokens + t;
      float max = 0;
      int32_t sum = 0;
      for (int k = 0; k < kGroupColumns; ++k) {
        const float value = x[(t * groups + g) * kGroupColumns + k];
        const int q = out.q[at * kGroupColumns + k];
        max = std::max(max, std::abs(value));
        sum += q;
        EXPECT_NEAR(q * out.scale[at], value, 0.5001f * out.scale[at]);
        EXPECT_LE(std::abs(q), 127);
      }
      EXPECT_EQ(out.scale[at], max / 127);
      EXPECT_EQ(out.bias[at], -128 * sum);
    }
  }
}

TEST(ScalarTest, NormAndSiluMatchDouble) {
  Random random(3);
  for (int64_t n : {1, 16, 576, 4099}) {
    const std::vector<float> x = Normal(random, n), w = Normal(random, n);
    std::vector<float> out(n, kPoison);
    ScalarKernels().rms_norm(x.data(), w.data(), n, 1e-5f, out.data());
    double squares = 0;
    for (float v : x) squares += double{v} * v;
    for (int64_t i = 0; i < n; ++i) {
      const double want = x[i] * w[i] / std::sqrt(squares / n + 1e-5);
      ASSERT_NEAR(out[i], want, 1e-6 * std::abs(want));
    }
  }
  std::vector<float> gate, up;
  for (float v = -80; v <= 100; v += 0.0137f) gate.push_back(v);
  up.assign(gate.size(), 1.0f);
  const std::vector<float> x = gate;
  ScalarKernels().silu_mul(gate.data(), up.data(), gate.size());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double want = x[i] / (1 + std::exp(-double{x[i]}));
    ASSERT_NEAR(gate[i], want, 3e-7 * std::abs(want)) << x[i];
  }
}

// Keys and values of positions, and queries that see those from `begin` on; their attention by
// whichever table. What no query sees is NaN.
struct AttentionProblem {
  int64_t begin, n_positions, head_dim, n_heads, n_tokens;
  int64_t width, q_stride, span_stride;
  std::vector<float> q, out;
  std::vector<uint16_t> cache;

  AttentionProblem(Random& random, int64_t begin, int64_t n, int64_t dim, int64_t heads,
                   int64_t tokens)
      : begin(begin),
        n_positions(n),
        head_dim(dim),
        n_heads(heads),
        n_tokens(tokens),
        width(AttentionWidth(dim)),
        q_stride(heads * dim + 5),
        span_stride(2 * kAttentionSpan * width + 48) {
    q = Normal(random, (tokens - 1) * q_stride + heads * dim);
    const int64_t seen = n + tokens - 1;
    cache.assign((seen + kAttentionSpan - 1) / kAttentionSpan * span_stride, 0x7e00);
    for (int64_t i = begin; i < seen; ++i) {
      for (uint16_t* row : {key(i), value(i)}) {
        const std::vector<float> values = Normal(random, dim);
        for (int64_t d = 0; d < width; ++d) row[d] = FloatToHalf(d < dim ? values[d] : 0.0f);
      }
    }
  }
  uint16_t* key(int64_t position) {
    return &cache[position / kAttentionSpan * span_stride + position % kAttentionSpan * width];
  }
  uint16_t* value(int64_t position) { return key(position) + kAttentionSpan * width; }

  AttentionArgs Args(float* to) {
    return {q.data(),
            q_stride,
            n_heads,
            n_tokens,
            key(0),
            value(0),
            span_stride,
            begin,
            n_positions,
            head_dim,
            1.5f / std::sqrt(static_cast<float>(head_dim)),
            false,
            to,
            q_stride};
  }
  void Run(const KernelTable& table) {
    out.assign(q.size(), kPoison);
    table.attention(Args(out.data()));
  }
  // The same of one token, span by span.
  void RunParts(const KernelTable& table) {
    const int64_t n_parts = (n_positions + kAttentionSpan - 1) / kAttentionSpan;
    const int64_t part = AttentionPartFloats(head_dim), stride = n_heads * part;
    std::vector<float> parts(n_parts * stride, kPoison);
    for (int64_t p = 0; p < n_parts; ++p) {
      AttentionArgs args = Args(&parts[p * stride]);
      args.keys += p * span_stride;
      args.values += p * span_stride;
      args.begin = p == 0 ? begin : 0;
      args.n_positions = std::min<int64_t>(kAttentionSpan, n_positions - p * kAttentionSpan);
      args.parts = true;
      table.attention(args);
    }
    out.assign(q.size(), kPoison);
    for (int64_t h = 0; h < n_heads; ++h) {
      table.join_parts(&parts[h * part], n_parts, stride, head_dim, &out[h * head_dim]);
    }
  }
  std::string Describe() const {
    return "head_dim " + std::to_string(head_dim) + " positions " + std::to_string(begin) + " to " +
           std::to_string(n_positions) + " heads " + std::to_string(n_heads) + " tokens " +
           std::to_string(n_tokens);
  }
};

TEST(ScalarTest, AttentionMatchesDouble) {
  Random random(4);
  for (int64_t n : {1, 64, 128, 129, 300}) {
    const int64_t begin = n == 300 ? 77 : 0;
    AttentionProblem p(random, begin, n, 24, 2, 3);
    p.Run(ScalarKernels());
    for (int64_t t = 0; t < p.n_tokens; ++t) {
      for (int64_t h = 0; h < p.n_heads; ++h) {
        std::vector<double> want(p.head_dim);
        double total = 0;
        for (int64_t i = begin; i < n + t; ++i) {
          double score = 0;
          for (int64_t d = 0; d < p.head_dim; ++d) {
            score += double{p.q[t * p.q_stride + h * p.head_dim + d]} * HalfToFloat(p.key(i)[d]);
          }
          const double weight = std::exp(score * 1.5 / std::sqrt(24.0));
          total += weight;
          for (int64_t d = 0; d < p.head_dim; ++d) want[d] += weight * HalfToFloat(p.value(i)[d]);
        }
        for (int64_t d = 0; d < p.head_dim; ++d) {
          ASSERT_NEAR(p.out[t * p.q_stride + h * p.head_dim + d], want[d] / total, 2e-5) << n;
        }
      }
    }
  }
}

TEST(DispatchTest, ChoosesByNameAndRefusesWhatItCannotRun) {
  setenv("QUIRE_KERNELS", "scalar", 1);
  EXPECT_EQ(ChooseKernels(), &ScalarKernels());
  setenv("QUIRE_KERNELS", "abacus", 1);
  EXPECT_EQ(ChooseKernels(), nullptr);
  unsetenv("QUIRE_KERNELS");
  const KernelTable* best = nullptr;
  for (const KernelTable* const* k = AllKernels(); *k != nullptr; ++k) {
    setenv("QUIRE_KERNELS", (*k)->name, 1);
    EXPECT_EQ(ChooseKernels(), (*k)->supported() ? *k : nullptr) << (*k)->name;
    if ((*k)->supported()) best = *k;
  }
  unsetenv("QUIRE_KERNELS");
  EXPECT_EQ(ChooseKernels(), best);
}

class KernelsTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  void SetUp() override {
    if (!table().supported()) GTEST_SKIP() << table().name << ": this CPU cannot run it";
  }
  const KernelTable& table() const { return *GetParam(); }
};

TEST_P(KernelsTest, MatmulIsScalarBitForBit) {
  Random random(5);
  for (const EncodingInfo& info : kEncodings) {
    const int e = static_cast<int>(info.encoding) - 1;
    for (int64_t groups : kGroupCounts) {
      for (int64_t n_tokens : kTokenCounts) {
        for (Fill fill : {Fill::kRandom, Fill::kLowest, Fill::kHighest}) {
          const int64_t rows = kRowCounts[random() % 5];
          Problem p = MakeProblem(random, info.encoding, rows, groups, n_tokens, fill);
          std::vector<float> want, got;
          ScalarKernels().matmul[e](p.Args(&want));
          table().matmul[e](p.Args(&got));
          ASSERT_NO_FATAL_FAILURE(ExpectSame(want, got, Describe(p)));
        }
      }
    }
  }
}

TEST_P(KernelsTest, MatmulOfABatchIsThatOfItsTokens) {
  Random random(6);
  for (const EncodingInfo& info : kEncodings) {
    const auto matmul = table().matmul[static_cast<int>(info.encoding) - 1];
    Problem p = MakeProblem(random, info.encoding, 32, 13, 33, Fill::kRandom);
    std::vector<float> batch;
    matmul(p.Args(&batch));
    for (int64_t t = 0; t < p.n_tokens; ++t) {
      Problem one = p;
      one.n_tokens = 1;
      one.x.assign(p.x.begin() + t * p.geometry.cols, p.x.begin() + (t + 1) * p.geometry.cols);
      one.xq = Quantized(13, 1);
      table().quantize(one.x.data(), p.geometry.cols, 1, 0, 1, 13, one.xq.view());
      std::vector<float> y;
      matmul(one.Args(&y));
      const auto row = batch.begin() + t * p.y_stride();
      ASSERT_NO_FATAL_FAILURE(
          ExpectSame(std::vector<float>(row, row + p.y_stride()), y, Describe(p)));
    }
  }
}

TEST_P(KernelsTest, DamagedActivationsShow) {
  Random random(7);
  for (float bad : {kPoison, kInf, -kInf}) {
    Problem p = MakeProblem(random, Encoding::kQ4, 16, 4, 17, Fill::kRandom);
    p.x[5 * p.geometry.cols + 40] = bad;
    table().quantize(p.x.data(), p.geometry.cols, 17, 0, 17, 4, p.xq.view());
    std::vector<float> y;
    table().matmul[static_cast<int>(Encoding::kQ4) - 1](p.Args(&y));
    for (int64_t t = 0; t < 17; ++t) {
      for (int r = 0; r < 16; ++r) ASSERT_EQ(std::isnan(y[t * p.y_stride() + r]), t == 5) << bad;
    }
  }
}

TEST_P(KernelsTest, QuantizeIsScalarBitForBit) {
  Random random(8);
  const int64_t groups = 9, n_tokens = 5, stride = groups * kGroupColumns + 7;
  std::vector<float> x = Normal(random, n_tokens * stride);
  auto group = [&](int64_t t, int64_t g) { return &x[t * stride + g * kGroupColumns]; };
  for (int k = 0; k < kGroupColumns; ++k) {
    group(0, 0)[k] = 0;
    group(0, 1)[k] = k == 0 ? -127.0f : k / 2.0f;  // ties
    group(0, 2)[k] *= 1e-37f;                      // under 2^-120
    group(1, 3)[k] *= 1e-44f;                      // subnormal
    group(1, 4)[k] *= 1e38f;
    group(1, 5)[k] = k % 2 ? 0x1p-120f : 0x1p-121f;
  }
  group(2, 0)[31] = kPoison;
  group(2, 1)[0] = kInf;
  group(2, 2)[16] = -kInf;
  Quantized want(groups, n_tokens), got(groups, n_tokens);
  ScalarKernels().quantize(x.data(), stride, n_tokens, 0, n_tokens, groups, want.view());
  table().quantize(x.data(), stride, n_tokens, 0, 2, groups, got.view());
  for (int64_t g = 0; g < groups; ++g) {
    ASSERT_EQ(got.q[(g * n_tokens + 2) * kGroupColumns], 99);  // tokens [0, 2) and no other
    ASSERT_EQ(got.bias[g * n_tokens + 2], 1 << 30);
  }
  table().quantize(x.data(), stride, n_tokens, 2, n_tokens, groups, got.view());
  EXPECT_EQ(want.q, got.q);
  EXPECT_EQ(want.bias, got.bias);
  ExpectSame(want.scale, got.scale, "scale");
}

TEST_P(KernelsTest, VectorsAreScalarBitForBit) {
  Random random(9);
  for (int64_t n : {1, 2, 7, 15, 16, 17, 31, 64, 576, 4099}) {
    std::vector<float> x = Normal(random, n), w = Normal(random, n), want(n, kPoison),
                       got(n, kPoison);
    ScalarKernels().rms_norm(x.data(), w.data(), n, 1e-5f, want.data());
    table().rms_norm(x.data(), w.data(), n, 1e-5f, got.data());
    ExpectSame(want, got, "rms_norm");
    got = x;
    table().rms_norm(got.data(), w.data(), n, 1e-5f, got.data());
    ExpectSame(want, got, "rms_norm in place");

    for (float& v : x) v *= 40;
    if (n > 7)
      x[0] = kInf, x[1] = -kInf, x[2] = kPoison, x[3] = 0, x[4] = -0.0f, x[5] = 1e-40f,
      x[6] = -1e30f;
    want = got = x;
    ScalarKernels().silu_mul(want.data(), w.data(), n);
    table().silu_mul(got.data(), w.data(), n);
    ExpectSame(want, got, "silu_mul");
  }
}

TEST_P(KernelsTest, HalfIsScalarBitForBit) {
  Random random(10);
  std::vector<float> x = {0.0f,   -0.0f,        65504.0f,     65519.99f,   65520.0f,   -65536.0f,
                          kInf,   -kInf,        5.9e-8f,      2.9e-8f,     2.98e-8f,   6.1e-5f,
                          1e-40f, 0x1.ffcp-15f, 0x1.ffep-15f, 0x1.0ffep3f, 0x1.0062p3f};
  for (int i = 0; i < 100000; ++i) {
    const float v = BitsToFloat(random());
    if (!std::isnan(v)) x.push_back(v);
  }
  for (float v : Normal(random, 100003)) x.push_back(v);
  for (size_t n : {size_t{1}, size_t{15}, size_t{17}, x.size()}) {
    std::vector<uint16_t> want(n, 0x7fff), got(n, 0x7fff);
    ScalarKernels().to_half(x.data(), n, want.data());
    table().to_half(x.data(), n, got.data());
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(want[i], got[i]) << x[i];
  }
  uint16_t nan[3];
  const float bad[3] = {1, kPoison, 2};
  table().to_half(bad, 3, nan);
  EXPECT_TRUE(std::isnan(HalfToFloat(nan[1])));
}

TEST_P(KernelsTest, AttentionIsScalarBitForBit) {
  Random random(11);
  const struct {
    int64_t heads, tokens;
  } kQueries[] = {{1, 1}, {2, 1}, {3, 1}, {1, 17}, {4, 5}, {8, 1}, {9, 3}, {20, 1}};
  for (int64_t head_dim : {1, 8, 16, 24, 64, 80, 128, kMaxHeadDim}) {
    for (int64_t n : {1, 15, 17, 63, 64, 127, 128, 129, 257, 400}) {
      const auto [heads, tokens] = kQueries[random() % std::size(kQueries)];
      const int64_t begin = n > 64 ? random() % 64 : 0;
      AttentionProblem p(random, begin, n, head_dim, heads, tokens);
      p.Run(ScalarKernels());
      const std::vector<float> want = p.out;
      p.Run(table());
      ASSERT_NO_FATAL_FAILURE(ExpectSame(want, p.out, p.Describe()));
    }
  }
}

TEST_P(KernelsTest, PartsOfAttentionGiveTheSameBits) {
  Random random(13);
  for (int64_t head_dim : {1, 24, 64, 80, 128, kMaxHeadDim}) {
    for (int64_t n : {5, 128, 129, 700}) {
      for (int64_t heads : {1, 2, 3, 4, 7, 18}) {
        AttentionProblem p(random, n / 8, n, head_dim, heads, 1);
        p.RunParts(ScalarKernels());
        const std::vector<float> want = p.out;
        p.Run(table());
        ASSERT_NO_FATAL_FAILURE(ExpectSame(want, p.out, "whole, " + p.Describe()));
        p.RunParts(table());
        ASSERT_NO_FATAL_FAILURE(ExpectSame(want, p.out, "parts, " + p.Describe()));
      }
    }
  }
}

// Scores far apart: weights vanish, maxima move with every block, and the last position takes all.
TEST_P(KernelsTest, AttentionOfWildScores) {
  Random random(12);
  AttentionProblem p(random, 0, 400, 64, 2, 2);
  for (int64_t i = 0; i < 401; ++i) {
    for (int64_t d = 0; d < 64; ++d) {
      p.key(i)[d] = FloatToHalf(HalfToFloat(p.key(i)[d]) * static_cast<float>(i));
    }
  }
  p.Run(ScalarKernels());
  const std::vector<float> want = p.out;
  for (int64_t d = 0; d < 64; ++d) ASSERT_TRUE(std::isfinite(want[d]));
  p.Run(table());
  ExpectSame(want, p.out, "wild");
}

std::vector<const KernelTable*> VectorTables() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable* const* k = AllKernels(); *k != nullptr; ++k) {
    if (*k != &ScalarKernels()) tables.push_back(*k);
  }
  return tables;
}

INSTANTIATE_TEST_SUITE_P(Kernels, KernelsTest, testing::ValuesIn(VectorTables()),
                         [](const auto& info) { return std::string(info.param->name); });
#ifdef __x86_64__
// amx.cc with tiles in software (testing/amx_tiles.h): its logic, where the CPU has none.
INSTANTIATE_TEST_SUITE_P(AmxOnTilesInSoftware, KernelsTest, testing::Values(&ModelledAmxKernels()));
#endif

}  // namespace
}  // namespace quire
