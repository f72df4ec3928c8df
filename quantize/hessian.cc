#include "quantize/hessian.h"

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <utility>

#include "quantize/kernels/matrix.h"

namespace quire {
namespace {

constexpr int64_t kBlock = SymmetricMatrix::kBlock;
// Rows of a block that are eliminated together, the kernel's smallest step.
constexpr int64_t kStep = 8;

// Rows [row, row + 8) of `x` lose what the rows above them explain: x -= factor' x.
void SubtractRowsAbove(const float* factor, int64_t row, float* x) {
  MultiplyAddArgs args{};
  args.a = factor + row;
  args.a_row = 1;
  args.a_step = kBlock;
  args.b = x;
  args.b_row = kBlock;
  args.k = row;
  args.c = x + row * kBlock;
  args.c_row = kBlock;
  args.rows = kStep;
  args.cols = kBlock;
  args.sign = -1;
  ChooseMatrixKernels().multiply_add(args);
}

// x := U'^-1 x, U the upper triangle of `factor`.
void SolveBlock(const float* factor, float* x) {
  for (int64_t first = 0; first < kBlock; first += kStep) {
    SubtractRowsAbove(factor, first, x);
    for (int64_t k = first; k < first + kStep; ++k) {
      for (int64_t above = first; above < k; ++above) {
        const float u = factor[above * kBlock + k];
        for (int64_t j = 0; j < kBlock; ++j) x[k * kBlock + j] -= u * x[above * kBlock + j];
      }
      const float inverse = 1.0f / factor[k * kBlock + k];
      for (int64_t j = 0; j < kBlock; ++j) x[k * kBlock + j] *= inverse;
    }
  }
}

// The same with x as its own factor, no pivot below `least`. What lies below the diagonal loses its
// meaning.
void FactorBlock(float least, float* x) {
  for (int64_t first = 0; first < kBlock; first += kStep) {
    SubtractRowsAbove(x, first, x);
    for (int64_t k = first; k < first + kStep; ++k) {
      for (int64_t above = first; above < k; ++above) {
        const float u = x[above * kBlock + k];
        for (int64_t j = k; j < kBlock; ++j) x[k * kBlock + j] -= u * x[above * kBlock + j];
      }
      const float root = std::sqrt(std::max(x[k * kBlock + k], least)), inverse = 1.0f / root;
      x[k * kBlock + k] = root;
      for (int64_t j = k + 1; j < kBlock; ++j) x[k * kBlock + j] *= inverse;
    }
  }
}

}  // namespace

std::vector<float> SymmetricMatrix::Diagonal() const {
  std::vector<float> diagonal(n_);
  for (int64_t i = 0; i < n_; ++i) diagonal[i] = At(i, i);
  return diagonal;
}

void SymmetricMatrix::AddOuterProducts(const float* x, int64_t stride, int64_t tokens,
                                       ThreadPool& pool) {
  // Columns side by side, a block at a time: [block][token][128].
  std::vector<float> packed(blocks_ * tokens * kBlock);
  pool.ParallelFor(blocks_, [&](int64_t block, int) {
    const int64_t first = block * kBlock, count = std::min(kBlock, n_ - first);
    for (int64_t t = 0; t < tokens; ++t) {
      std::copy_n(x + t * stride + first, count, packed.data() + (block * tokens + t) * kBlock);
    }
  });
  pool.ParallelFor(blocks_ * (blocks_ + 1) / 2, [&](int64_t k, int) {
    int64_t i = 0;
    while (k >= blocks_ - i) k -= blocks_ - i++;
    const int64_t j = i + k;
    for (int64_t t = 0; t < tokens; t += kBlock) {  // a tile's operands stay in the nearest cache
      MultiplyAddArgs args{};
      args.a = packed.data() + (i * tokens + t) * kBlock;
      args.a_row = 1;
      args.a_step = kBlock;
      args.b = packed.data() + (j * tokens + t) * kBlock;
      args.b_row = kBlock;
      args.k = std::min(kBlock, tokens - t);
      args.c = Block(i, j);
      args.c_row = kBlock;
      args.rows = args.cols = kBlock;
      args.sign = 1;
      ChooseMatrixKernels().multiply_add(args);
    }
  });
}

void SymmetricMatrix::Permute(absl::Span<const int32_t> order) {
  std::vector<int32_t> at(n_), where(n_);  // which row is here, and where a row is
  std::iota(at.begin(), at.end(), 0);
  std::iota(where.begin(), where.end(), 0);
  for (int64_t i = 0; i < n_; ++i) {
    const int64_t j = where[order[i]];
    if (i == j) continue;
    for (int64_t k = 0; k < n_; ++k) {
      if (k != i && k != j) std::swap(At(i, k), At(j, k));
    }
    std::swap(At(i, i), At(j, j));
    std::swap(at[i], at[j]);
    where[at[i]] = static_cast<int32_t>(i);
    where[at[j]] = static_cast<int32_t>(j);
  }
}

void SymmetricMatrix::Factor(double damping, ThreadPool& pool) {
  double sum = 0;
  for (int64_t i = 0; i < n_; ++i) sum += At(i, i);
  const double mean = n_ > 0 ? sum / static_cast<double>(n_) : 0;
  const float added = mean > 0 ? std::max(static_cast<float>(mean * damping), FLT_MIN) : 1.0f;
  for (int64_t i = 0; i < blocks_ * kBlock; ++i) {
    float& diagonal = Block(i / kBlock, i / kBlock)[i % kBlock * (kBlock + 1)];
    diagonal = i < n_ ? diagonal + added : 1.0f;
  }
  for (int64_t k = 0; k < blocks_; ++k) {
    FactorBlock(added, Block(k, k));
    pool.ParallelFor(blocks_ - k - 1,
                     [&](int64_t j, int) { SolveBlock(Block(k, k), Block(k, k + 1 + j)); });
    pool.ParallelFor(blocks_ - k - 1, [&](int64_t last, int) {
      const int64_t j = blocks_ - 1 - last;  // the longest first
      for (int64_t i = k + 1; i <= j; ++i) {
        MultiplyAddArgs args{};
        args.a = Block(k, i);
        args.a_row = 1;
        args.a_step = kBlock;
        args.b = Block(k, j);
        args.b_row = kBlock;
        args.k = kBlock;
        args.c = Block(i, j);
        args.c_row = kBlock;
        args.rows = args.cols = kBlock;
        args.sign = -1;
        ChooseMatrixKernels().multiply_add(args);
      }
    });
  }
}

}  // namespace quire
