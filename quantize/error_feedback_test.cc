#include "quantize/error_feedback.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "quantize/kernels/matrix.h"

namespace quire {
namespace {

constexpr int64_t kBlock = SymmetricMatrix::kBlock;

// Inputs [tokens][n] in which neighbours are correlated and some columns are far larger.
std::vector<float> Inputs(int64_t tokens, int64_t n, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(tokens * n);
  for (int64_t t = 0; t < tokens; ++t) {
    float last = 0;
    for (int64_t c = 0; c < n; ++c) {
      last = 0.8f * last + normal(random);
      x[t * n + c] = last * (c % 37 == 5 ? 10.0f : 1.0f);
    }
  }
  return x;
}

std::vector<float> Weights(int64_t rows, int64_t cols, int seed) {
  std::mt19937 random(seed);
  std::student_t_distribution<float> heavy(5);
  std::vector<float> w(rows * cols);
  for (float& value : w) value = 0.02f * heavy(random);
  return w;
}

std::vector<double> OuterProducts(const std::vector<float>& x, int64_t n) {
  std::vector<double> h(n * n);
  const int64_t tokens = x.size() / n;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) h[i * n + j] += double{x[t * n + i]} * x[t * n + j];
    }
  }
  return h;
}

TEST(MatrixKernelsTest, EveryTableGivesTheScalarBits) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> a(200 * 160), b(200 * 160), c(64 * 160);
  for (auto* v : {&a, &b, &c}) {
    for (float& value : *v) value = normal(random);
  }
  for (const int64_t k : {0, 1, 7, 128}) {
    for (const bool transposed : {false, true}) {
      for (const float sign : {1.0f, -1.0f}) {
        MultiplyAddArgs args{a.data(),
                             transposed ? 1 : 160,
                             transposed ? 160 : 1,
                             b.data(),
                             160,
                             k,
                             nullptr,
                             160,
                             24,
                             96,
                             sign};
        std::vector<float> expected = c;
        args.c = expected.data();
        ScalarMatrixKernels().multiply_add(args);
        for (int64_t i = 0; i < 24; ++i) {
          for (int64_t j = 0; j < 96; ++j) {
            double sum = 0;
            for (int64_t t = 0; t < k; ++t) {
              sum += double{a[transposed ? t * 160 + i : i * 160 + t]} * b[t * 160 + j];
            }
            EXPECT_NEAR(expected[i * 160 + j], c[i * 160 + j] + sign * sum, 1e-4);
          }
        }
        for (const MatrixKernels* const* table = AllMatrixKernels(); *table != nullptr; ++table) {
          if (!(*table)->supported()) continue;
          std::vector<float> result = c;
          args.c = result.data();
          (*table)->multiply_add(args);
          EXPECT_EQ(result, expected) << (*table)->name << ", k " << k;
        }
      }
    }
  }
}

TEST(SymmetricMatrixTest, HoldsOuterProducts) {
  ThreadPool pool(2);
  for (const int64_t n : {1, 31, 128, 130, 300}) {
    const std::vector<float> x = Inputs(50, n, 2);
    const std::vector<double> expected = OuterProducts(x, n);
    SymmetricMatrix h(n);
    h.AddOuterProducts(x.data(), n, 20, pool);
    h.AddOuterProducts(x.data() + 20 * n, n, 30, pool);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_NEAR(h.At(i, j), expected[i * n + j],
                    1e-5 * std::sqrt(expected[i * n + i] * expected[j * n + j]));
      }
      EXPECT_EQ(h.Diagonal()[i], h.At(i, i));
    }
  }
}

TEST(SymmetricMatrixTest, PermutesRowsAndColumns) {
  ThreadPool pool(1);
  const int64_t n = 200;
  SymmetricMatrix h(n);
  const std::vector<float> x = Inputs(10, n, 3);
  h.AddOuterProducts(x.data(), n, 10, pool);
  const SymmetricMatrix before = h;
  std::vector<int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(4));
  h.Permute(order);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) EXPECT_EQ(h.At(i, j), before.At(order[i], order[j]));
  }
}

TEST(SymmetricMatrixTest, FactorTimesItselfIsTheDampedMatrix) {
  for (const int64_t n : {1, 40, 128, 300}) {
    const std::vector<float> x = Inputs(30, n, 5);  // of a rank below n
    const std::vector<double> h = OuterProducts(x, n);
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += h[i * n + i] / n;
    std::vector<std::vector<float>> factors;
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      SymmetricMatrix u(n);
      u.AddOuterProducts(x.data(), n, 30, pool);
      u.Factor(0.01, pool);
      factors.emplace_back();
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_GT(u.At(i, i), 0);
        for (int64_t j = i; j < n; ++j) {
          double sum = 0;
          for (int64_t k = 0; k <= i; ++k) sum += double{u.At(k, i)} * u.At(k, j);
          const double wanted = h[i * n + j] + (i == j ? 0.01 * mean : 0);
          EXPECT_NEAR(sum, wanted, 1e-4 * std::sqrt(h[i * n + i] * h[j * n + j] + mean * mean))
              << i << " " << j;
          factors.back().push_back(u.At(i, j));
        }
      }
    }
    EXPECT_EQ(factors[0], factors[1]);
  }
}

TEST(SymmetricMatrixTest, InputsThatNeverComeHaveAFactorToo) {
  ThreadPool pool(1);
  SymmetricMatrix none(70);
  none.Factor(0.01, pool);
  for (int64_t i = 0; i < 70; ++i) {
    for (int64_t j = i; j < 70; ++j) EXPECT_EQ(none.At(i, j), i == j ? 1 : 0);
  }
}

// tr(D H D') of what a matrix became.
double WeighedError(const Geometry& g, const int8_t* codebook, const std::vector<uint8_t>& stored,
                    const std::vector<float>& w, const std::vector<double>& h) {
  std::vector<float> unit(g.unit_rows() * g.padded_cols());
  double error = 0;
  for (int64_t row = 0; row < g.rows; ++row) {
    if (row % kPanelRows == 0) {
      DecodeUnit(g, codebook, stored.data(), row / kPanelRows, unit.data());
    }
    std::vector<double> d(g.cols);
    for (int64_t c = 0; c < g.cols; ++c) {
      d[c] = double{w[row * g.cols + c]} - unit[row % kPanelRows * g.padded_cols() + c];
    }
    for (int64_t i = 0; i < g.cols; ++i) {
      for (int64_t j = 0; j < g.cols; ++j) error += d[i] * h[i * g.cols + j] * d[j];
    }
  }
  return error;
}

class ErrorFeedbackTest : public testing::TestWithParam<Encoding> {};
std::vector<Encoding> Integers() {
  std::vector<Encoding> encodings;
  for (const EncodingInfo& info : kEncodings) {
    if (info.scale_bytes > 0) encodings.push_back(info.encoding);
  }
  return encodings;
}
INSTANTIATE_TEST_SUITE_P(All, ErrorFeedbackTest, testing::ValuesIn(Integers()),
                         [](const auto& info) { return Info(info.param).name; });

TEST_P(ErrorFeedbackTest, HalvesTheErrorOfPlainRoundingWhereInputsAreCorrelated) {
  ThreadPool pool(2);
  const int8_t* codebook = CodebookFor(GetParam());
  const struct {
    int64_t rows, cols;
  } sizes[] = {{70, 288}, {16, 64}, {5, 100}, {33, 130}};
  for (const auto& size : sizes) {
    const Geometry g{GetParam(), Layout::kPanels, size.rows, size.cols};
    const std::vector<float> w = Weights(g.rows, g.cols, 6), x = Inputs(400, g.cols, 7);
    const std::vector<double> h = OuterProducts(x, g.cols);
    SymmetricMatrix moments(g.cols);
    moments.AddOuterProducts(x.data(), g.cols, 400, pool);
    const ErrorFeedback feedback = *MakeErrorFeedback(std::move(moments), pool);

    std::vector<uint8_t> plain(g.bytes()), fed(g.bytes());
    EncodingError error, plain_error;
    for (int64_t row = 0; row < g.rows; row += kPanelRows) {
      EncodeUnit(g, codebook, nullptr, w.data() + row * g.cols,
                 std::min<int64_t>(kPanelRows, g.rows - row),
                 plain.data() + row / kPanelRows * g.unit_bytes(), &plain_error);
    }
    for (int64_t row = 0; row < g.rows; row += kFeedbackRows) {
      EncodeWithFeedback(g, codebook, feedback, w.data() + row * g.cols,
                         std::min(kFeedbackRows, g.rows - row),
                         fed.data() + row / kPanelRows * g.unit_bytes(), &error);
    }
    const double with = WeighedError(g, codebook, fed, w, h),
                 without = WeighedError(g, codebook, plain, w, h);
    EXPECT_LT(with, 0.5 * without) << g.rows << " x " << g.cols;
    EXPECT_GT(with, 0);
    // What it says of itself is true.
    double squared = 0, norm = 0;
    std::vector<float> unit(g.unit_rows() * g.padded_cols());
    for (int64_t row = 0; row < g.rows; ++row) {
      if (row % kPanelRows == 0) DecodeUnit(g, codebook, fed.data(), row / kPanelRows, unit.data());
      for (int64_t c = 0; c < g.padded_cols(); ++c) {
        const float stored = unit[row % kPanelRows * g.padded_cols() + c];
        if (c >= g.cols) {
          // Zero may lie between two values of a group of q4_1.
          EXPECT_TRUE(stored == 0 || g.encoding == Encoding::kQ4_1) << "padding";
          continue;
        }
        squared += std::pow(double{w[row * g.cols + c]} - stored, 2);
        norm += std::pow(double{w[row * g.cols + c]}, 2);
      }
    }
    EXPECT_NEAR(error.squared_error, squared, 1e-6 * norm);
    EXPECT_NEAR(error.squared_norm, norm, 1e-6 * norm);
  }
}

TEST_P(ErrorFeedbackTest, ZeroStaysZeroAndDeadInputsHarmNobody) {
  ThreadPool pool(1);
  const int8_t* codebook = CodebookFor(GetParam());
  const Geometry g{GetParam(), Layout::kPanels, 16, 96};
  std::vector<float> x = Inputs(50, 96, 8);
  for (int64_t t = 0; t < 50; ++t) std::fill_n(x.begin() + t * 96 + 32, 32, 0.0f);
  SymmetricMatrix moments(96);
  moments.AddOuterProducts(x.data(), 96, 50, pool);
  const ErrorFeedback feedback = *MakeErrorFeedback(std::move(moments), pool);
  std::vector<float> w = Weights(16, 96, 9);
  std::fill_n(w.begin(), 96, 0.0f);  // row 0
  std::vector<uint8_t> stored(g.bytes());
  EncodingError error;
  EncodeWithFeedback(g, codebook, feedback, w.data(), 16, stored.data(), &error);
  std::vector<float> unit(16 * 96);
  DecodeUnit(g, codebook, stored.data(), 0, unit.data());
  for (int64_t c = 0; c < 96; ++c) EXPECT_EQ(unit[c], 0);
  for (int64_t r = 1; r < 16; ++r) {
    double squared = 0, norm = 0;
    for (int64_t c = 32; c < 64; ++c) {  // nothing tells how much these matter: rounded plainly
      squared += std::pow(w[r * 96 + c] - unit[r * 96 + c], 2);
      norm += std::pow(w[r * 96 + c], 2);
    }
    EXPECT_LT(squared, 0.05 * norm) << r;
  }
}

}  // namespace
}  // namespace quire
