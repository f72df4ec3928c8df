// The definition of every encoder: one row of floats into its place in a unit, of either layout.
#ifndef QUIRE_QUANTIZE_ROW_ENCODER_H_
#define QUIRE_QUANTIZE_ROW_ENCODER_H_

#include <cstdint>

#include "format/packed_layout.h"

namespace quire {

// Where row `row` (0..15 of a panel, 0 of a ROWS row) keeps its parts in a unit.
class RowPlace {
 public:
  RowPlace(const Geometry& geometry, int row, uint8_t* unit);

  // Float encodings: the element of a column.
  uint8_t* Element(int64_t column) const;
  // 8-bit codes: the byte of a column. 4-bit codes: the byte it shares with another; HighNibble
  // says which half is its.
  uint8_t* Code(int64_t column) const;
  static bool HighNibble(int64_t column) { return column % kGroupColumns >= kGroupColumns / 2; }
  // The row's scale of a group: scale_bytes bytes.
  uint8_t* Scale(int64_t group) const;
  // The f32 of encodings with row_scale.
  uint8_t* RowScale() const { return unit_ + (panels_ ? 4 * row_ : 0); }

 private:
  const Geometry& geometry_;
  const EncodingInfo& info_;
  const bool panels_;
  const int row_;
  uint8_t* const unit_;
};

struct RowArgs {
  const float* x;  // element c at x[c * stride]
  int64_t stride;
  const int8_t* codebook;       // as in encode.h
  const float* column_weights;  // as in encode.h
  double* squared_error;        // adds sum (x - decoded x)^2 over the row, columns ascending
  double* squared_norm;         // adds sum x^2
};

// Encodes one row. The unit's bytes were zero before its first row. Padded columns become zeros.
void EncodeRow(const Geometry& geometry, const RowArgs& args, int row, uint8_t* unit);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_ROW_ENCODER_H_
