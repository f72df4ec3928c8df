// Second moments of a matrix's inputs, X'X over the calibration's tokens, and their Cholesky
// factor: what error feedback (error_feedback.h) weighs errors with.
#ifndef QUIRE_QUANTIZE_HESSIAN_H_
#define QUIRE_QUANTIZE_HESSIAN_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "format/thread_pool.h"

namespace quire {

// A symmetric matrix [n][n] in f32. Half of it is stored: blocks of 128 x 128 on and above the
// diagonal; beyond n the diagonal's last block is zero. Not thread-safe; uses the pool's threads by
// itself, and gives the same bits for any number of them and on every CPU.
class SymmetricMatrix {
 public:
  static constexpr int64_t kBlock = 128;

  explicit SymmetricMatrix(int64_t n)
      : n_(n),
        blocks_((n + kBlock - 1) / kBlock),
        values_(blocks_ * (blocks_ + 1) / 2 * kBlock * kBlock) {}

  int64_t n() const { return n_; }
  int64_t blocks() const { return blocks_; }
  static int64_t Bytes(int64_t n) {
    const int64_t blocks = (n + kBlock - 1) / kBlock;
    return blocks * (blocks + 1) / 2 * kBlock * kBlock * static_cast<int64_t>(sizeof(float));
  }

  // Block row i, block column j >= i: [128][128].
  float* Block(int64_t i, int64_t j) {
    return values_.data() + (i * blocks_ - i * (i - 1) / 2 + j - i) * kBlock * kBlock;
  }
  const float* Block(int64_t i, int64_t j) const {
    return const_cast<SymmetricMatrix*>(this)->Block(i, j);
  }
  // Element (i, j) or (j, i), whichever is stored.
  float& At(int64_t i, int64_t j) {
    if (i > j) std::swap(i, j);
    return Block(i / kBlock, j / kBlock)[i % kBlock * kBlock + j % kBlock];
  }
  float At(int64_t i, int64_t j) const { return const_cast<SymmetricMatrix*>(this)->At(i, j); }
  std::vector<float> Diagonal() const;

  // Adds x'x of x [tokens][stride], whose first n columns count.
  void AddOuterProducts(const float* x, int64_t stride, int64_t tokens, ThreadPool& pool);

  // Row and column i of the result are row and column order[i], a permutation.
  void Permute(absl::Span<const int32_t> order);

  // Becomes U, upper triangular, U'U = this + d, in place. d is diagonal: damping * mean(diagonal),
  // and more only where rounding would leave a pivot below that (1 where all is zero).
  // Precondition: the diagonal's mean is finite.
  void Factor(double damping, ThreadPool& pool);

 private:
  int64_t n_, blocks_;
  std::vector<float> values_;
};

}  // namespace quire

#endif  // QUIRE_QUANTIZE_HESSIAN_H_
