// The definition of every encoder: one row of floats into its place in a unit, of either layout.
//
// Integer encodings go in two steps. ChooseScales fixes the scales of a whole row; under them a
// RowGrid rounds one column at a time, in any order, so that a caller may still change the columns
// to come (error feedback). EncodeRow is these two, column by column:
//   const RowScales scales = ChooseScales(geometry, input);
//   const RowGrid grid(geometry.encoding, input.codebook, scales);
//   place.StoreScales(scales);
//   for each column c: place.StoreCode(c, grid.Nearest(c, x[c]).code);
#ifndef QUIRE_QUANTIZE_ROW_ENCODER_H_
#define QUIRE_QUANTIZE_ROW_ENCODER_H_

#include <cstdint>
#include <vector>

#include "format/packed_layout.h"

namespace quire {

struct RowInput {
  const float* x;  // element c at x[c * stride], finite
  int64_t stride;
  const int8_t* codebook;       // as in encode.h
  const float* column_weights;  // as in encode.h
};

struct RowScales {
  float row = 1;                // the f32 of encodings with row_scale; 1 of others
  std::vector<float> groups;    // the value of each group's int8 or f16, as stored
  std::vector<float> minimums;  // of each group: q4_1 only
};

// Integer encodings. For q4, q5 and q6 the scales of least weighted squared error among the
// candidates (docs/quantization.md); for q8, q4_0 and q4_1 those that just reach each group's
// extremes.
RowScales ChooseScales(const Geometry& geometry, const RowInput& input);

// The integers that the codes of an encoding stand for: a codebook, or a range.
struct Levels {
  const int8_t* codebook;  // or null
  int size;
  float min, max;  // of a range
  float top;       // the integer of largest magnitude, of two the positive one

  Levels(Encoding encoding, const int8_t* codebook);
  struct Level {
    int code;     // from 0
    float value;  // the integer
  };
  // The nearest to y. At a midpoint the upper one of a codebook, the even one of a range.
  Level Nearest(float y) const;
};

// The values that a row of an integer encoding can hold under its scales. Immutable.
class RowGrid {
 public:
  RowGrid(Encoding encoding, const int8_t* codebook, const RowScales& scales);

  struct Point {
    int code;     // as stored: from 0 of 4 to 6 bits, the int8 of q8
    float value;  // what DecodeUnit makes of it
  };
  // The point nearest to x among those of the column's group.
  Point Nearest(int64_t column, float x) const;

 private:
  const Encoding encoding_;
  const Levels levels_;
  const RowScales scales_;
  const float row_inverse_;
  std::vector<float> group_inverses_;
};

// Where row `row` (0..15 of a panel, 0 of a ROWS row) keeps its parts in a unit.
class RowPlace {
 public:
  RowPlace(const Geometry& geometry, int row, uint8_t* unit);

  // Float encodings: the element of a column.
  uint8_t* Element(int64_t column) const;
  // Integer encodings: the byte that holds a column's code, or its low four bits.
  uint8_t* CodeByte(int64_t column) const;
  // The row's scale of a group: scale_bytes bytes.
  uint8_t* Scale(int64_t group) const;
  // The f32 of encodings with row_scale.
  uint8_t* RowScale() const { return unit_ + (panels_ ? 4 * row_ : 0); }

  void StoreScales(const RowScales& scales) const;
  // Each column once: its bits were zero before.
  void StoreCode(int64_t column, int code) const;

 private:
  uint8_t* GroupCodes(int64_t group) const;

  const Geometry& geometry_;
  const EncodingInfo& info_;
  const bool panels_;
  const int row_;
  uint8_t* const unit_;
};

// Encodes one row. The unit's bytes were zero before its first row. Padded columns become zeros,
// or of q4_1, which may have none, what is nearest.
// Adds sum (x - decoded x)^2 over the row, columns ascending, to *squared_error, and sum x^2 to
// *squared_norm.
void EncodeRow(const Geometry& geometry, const RowInput& input, int row, uint8_t* unit,
               double* squared_error, double* squared_norm);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_ROW_ENCODER_H_
