// The rows of a tensor in a .quire file, in the order and the coding of the checkpoint that is
// written from it.
#ifndef QUIRE_CONVERT_EXPORT_STORED_ROWS_H_
#define QUIRE_CONVERT_EXPORT_STORED_ROWS_H_

#include <cstdint>

#include "format/model_file.h"

namespace quire {

// Borrows the view, whose file must stay open. Thread-safe.
class StoredRows {
 public:
  // interleaved_heads > 0: the rows (of a bias: the elements) of each of so many heads are stored
  // in rotate-half order (pairs i, i + head_dim / 2) and come out interleaved (pairs 2i, 2i + 1).
  explicit StoredRows(const TensorView& tensor, int interleaved_heads = 0);

  const TensorView& tensor() const { return *tensor_; }
  // Of a vector: as many rows as elements, of one column, where its elements are permuted;
  // otherwise one row.
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  // Rows are read in ranges that begin at a multiple of it.
  int64_t row_step() const { return row_step_; }

  // Rows [first, first + n) as f32 [n][cols].
  void ReadFloats(int64_t first, int64_t n, float* out) const;
  // Rows [first, first + n) as blocks of 32 columns: the scale's bytes, then the codes', as GGUF's
  // blocks of the same name have them. Precondition: an encoding of GGUF's (q4_0, q4_1, q8); cols a
  // multiple of 32.
  void ReadBlocks(int64_t first, int64_t n, uint8_t* out) const;
  int64_t block_bytes() const;

 private:
  // The row of the tensor that becomes row `row`.
  int64_t StoredRow(int64_t row) const;
  template <typename Copy>
  void ForEachUnit(int64_t first, int64_t n, Copy copy) const;

  const TensorView* tensor_;
  int64_t rows_, cols_;
  int64_t head_dim_ = 0;  // of permuted rows; 0: as stored
  int64_t row_step_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_STORED_ROWS_H_
