// Where each element of a stored tensor lies: the geometry of FORMAT.md, section "Layouts", and its
// scalar decoder.
//
// PANELS. A matrix [rows, cols] is cut into panels of 16 rows. Rows are padded to 16 and columns to
// 32, with zeros. A line is 64 bytes: 16 rows of 32 bits, row r at bytes 4r .. 4r+3, that is 4
// columns of int8, 2 of 16-bit floats, 1 of f32. The lines of a group (32 columns) follow one
// another by column; of 4-bit codes two lines share 64 bytes: stored line j (0..3) holds columns
// 4j..4j+3 in its low nibbles and 16+4j..16+4j+3 in its high ones. Codes of 5 and 6 bits keep their
// low four so, and the others in planes of 64 bytes behind them, where each bit stands in the byte
// of its code: one plane of 5-bit codes, whose bit j is that of line j (0..7); two of 6-bit codes,
// whose bits 2j and 2j+1 (j = 0..3) are those of line j in the first and of line 4+j in the second.
//   panel = [row scales: 16 f32, if the encoding has them] block*
//   block = [scales of up to 4 groups: group by group, 16 rows each; padded to 64 bytes] [codes of
//   the same groups]
// Every panel and every block starts on a 64-byte boundary.
//
// ROWS. Each row on its own:
//   row = [row scale: f32, if any; scales of its groups; both together padded to 64 bytes] [codes]
// codes: as in a panel of one row, whose lines have 4 bytes: 8-bit codes and floats with columns in
// order; of 4-bit codes byte j of a group's 16 holds column j in its low nibble and 16+j in its
// high one. Float rows have no scales and no padding of columns: a vector is a plain array.
#ifndef QUIRE_FORMAT_PACKED_LAYOUT_H_
#define QUIRE_FORMAT_PACKED_LAYOUT_H_

#include <cstdint>

#include "format/encoding.h"

namespace quire {

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// A tensor's encoding, layout and logical shape determine every stored offset. A value type.
struct Geometry {
  Encoding encoding;
  Layout layout;
  int64_t rows;  // a vector is one row
  int64_t cols;

  int64_t padded_cols() const { return RoundUp(cols, kGroupColumns); }
  int64_t groups() const { return padded_cols() / kGroupColumns; }
  // Rows of one unit: 16 of a panel, 1 of a row.
  int64_t unit_rows() const { return layout == Layout::kPanels ? kPanelRows : 1; }
  int64_t units() const { return (rows + unit_rows() - 1) / unit_rows(); }
  // Bytes of the codes of one group of one unit.
  int64_t group_code_bytes() const {
    return unit_rows() * kGroupColumns * Info(encoding).code_bits / 8;
  }
  // PANELS: bytes of a block of n groups (1..4).
  int64_t block_bytes(int n) const {
    return RoundUp(int64_t{n} * kPanelRows * Info(encoding).scale_bytes, kLineBytes) +
           n * group_code_bytes();
  }
  int64_t unit_bytes() const;  // a panel's bytes, or a row's
  int64_t bytes() const { return units() * unit_bytes(); }
};

// Where the bits of a code lie, from its group's first byte.
struct CodePlace {
  int low_byte, low_shift;    // the whole code of 8 bits, the low four of fewer
  int high_byte, high_shift;  // the HighBits others
};
// Column k (0..31) of row `row` of a unit with unit_rows rows. Integer encodings.
CodePlace PlaceOfCode(Encoding encoding, int unit_rows, int row, int k);

// Decodes unit `unit` (all of its stored rows, padding included) into out[unit_rows x padded_cols],
// row-major. `data` is the tensor's first byte; `codebook` its values, or null where the encoding
// has none. The definition of what stored bytes mean, and the oracle of every kernel.
void DecodeUnit(const Geometry& geometry, const int8_t* codebook, const uint8_t* data, int64_t unit,
                float* out);

// Whether the scales of a unit, whose first byte is `unit`, are numbers. Codes are valid whatever
// they are.
bool ScalesAreFinite(const Geometry& geometry, const uint8_t* unit);

}  // namespace quire

#endif  // QUIRE_FORMAT_PACKED_LAYOUT_H_
