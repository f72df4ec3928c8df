#include "format/packed_layout.h"

#include <algorithm>
#include <cstring>

#include "format/half.h"

namespace quire {
namespace {

template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

float LoadFloat(Encoding encoding, const uint8_t* p) {
  switch (encoding) {
    case Encoding::kF16:
      return HalfToFloat(Load<uint16_t>(p));
    case Encoding::kBF16:
      return Bfloat16ToFloat(Load<uint16_t>(p));
    default:
      return Load<float>(p);
  }
}

// The integer that a code stands for, before scales.
int IntegerValue(Encoding encoding, const int8_t* codebook, int code) {
  switch (encoding) {
    case Encoding::kQ8:
      return static_cast<int8_t>(code);
    case Encoding::kQ4_0:
      return code - 8;
    case Encoding::kQ6:
      return code - 32;
    case Encoding::kQ4_1:
      return code;
    default:
      return codebook[code];
  }
}

// The elements of one row of a group of integer codes. `scale`: the row's of this group.
void DecodeGroup(const Geometry& g, const int8_t* codebook, const uint8_t* group, int row,
                 float row_scale, const uint8_t* scale, float* out) {
  const int low_mask = Info(g.encoding).code_bits == 8 ? 255 : 15;
  const int high_mask = (1 << HighBits(g.encoding)) - 1;
  const float step = Info(g.encoding).scale_bytes == 1 ? static_cast<int8_t>(*scale)
                                                       : HalfToFloat(Load<uint16_t>(scale));
  const float minimum =
      g.encoding == Encoding::kQ4_1 ? HalfToFloat(Load<uint16_t>(scale + 2)) : 0.0f;
  for (int k = 0; k < kGroupColumns; ++k) {
    const CodePlace place = PlaceOfCode(g.encoding, static_cast<int>(g.unit_rows()), row, k);
    int code = group[place.low_byte] >> place.low_shift & low_mask;
    if (high_mask != 0) code |= (group[place.high_byte] >> place.high_shift & high_mask) << 4;
    const float value = static_cast<float>(IntegerValue(g.encoding, codebook, code));
    out[k] = row_scale * step * value;
    if (g.encoding == Encoding::kQ4_1) out[k] += minimum;
  }
}

bool HalfIsFinite(const uint8_t* p) { return (p[1] & 0x7c) != 0x7c; }

}  // namespace

int64_t Geometry::unit_bytes() const {
  const EncodingInfo& info = Info(encoding);
  if (layout == Layout::kPanels) {
    const int64_t full = groups() / kBlockGroups;
    const int tail = static_cast<int>(groups() % kBlockGroups);
    return (info.row_scale ? kPanelRows * 4 : 0) + full * block_bytes(kBlockGroups) +
           (tail ? block_bytes(tail) : 0);
  }
  if (info.scale_bytes == 0) return cols * info.code_bits / 8;
  return RoundUp((info.row_scale ? 4 : 0) + groups() * info.scale_bytes, kLineBytes) +
         groups() * group_code_bytes();
}

CodePlace PlaceOfCode(Encoding encoding, int unit_rows, int row, int k) {
  const int line_bytes = 4 * unit_rows, in_line = 4 * row + k % 4;
  const int line = k / 4, high_bits = HighBits(encoding);
  if (Info(encoding).code_bits == 8) return {line * line_bytes + in_line, 0, 0, 0};
  CodePlace place{line % 4 * line_bytes + in_line, line < 4 ? 0 : 4, 4 * line_bytes + in_line, 0};
  if (high_bits == 1) place.high_shift = line;
  if (high_bits == 2) {
    place.high_byte += line / 4 * line_bytes;
    place.high_shift = line % 4 * 2;
  }
  return place;
}

void DecodeUnit(const Geometry& g, const int8_t* codebook, const uint8_t* data, int64_t unit,
                float* out) {
  const EncodingInfo& info = Info(g.encoding);
  const uint8_t* p = data + unit * g.unit_bytes();
  const int64_t stride = g.padded_cols();
  if (g.layout == Layout::kRows) {
    if (info.scale_bytes == 0) {
      for (int64_t c = 0; c < stride; ++c) {
        out[c] = c < g.cols ? LoadFloat(g.encoding, p + c * info.code_bits / 8) : 0.0f;
      }
      return;
    }
    const int row_scale_bytes = info.row_scale ? 4 : 0;
    const float row_scale = info.row_scale ? Load<float>(p) : 1.0f;
    const uint8_t* codes = p + RoundUp(row_scale_bytes + g.groups() * info.scale_bytes, kLineBytes);
    for (int64_t i = 0; i < g.groups(); ++i) {
      DecodeGroup(g, codebook, codes + i * g.group_code_bytes(), 0, row_scale,
                  p + row_scale_bytes + i * info.scale_bytes, out + i * kGroupColumns);
    }
    return;
  }
  float row_scale[kPanelRows];
  for (int r = 0; r < kPanelRows; ++r)
    row_scale[r] = info.row_scale ? Load<float>(p + 4 * r) : 1.0f;
  if (info.row_scale) p += kPanelRows * 4;
  const int line_columns = 32 / info.code_bits;  // of floats
  for (int64_t first = 0; first < g.groups(); first += kBlockGroups) {
    const int n = static_cast<int>(std::min<int64_t>(kBlockGroups, g.groups() - first));
    const uint8_t* codes = p + RoundUp(int64_t{n} * kPanelRows * info.scale_bytes, kLineBytes);
    for (int i = 0; i < n; ++i) {
      const uint8_t* group = codes + i * g.group_code_bytes();
      for (int r = 0; r < kPanelRows; ++r) {
        float* row = out + r * stride + (first + i) * kGroupColumns;
        if (info.scale_bytes != 0) {
          DecodeGroup(g, codebook, group, r, row_scale[r],
                      p + (i * kPanelRows + r) * info.scale_bytes, row);
          continue;
        }
        for (int k = 0; k < kGroupColumns; ++k) {
          const uint8_t* line = group + k / line_columns * kLineBytes;
          row[k] = LoadFloat(g.encoding, line + 4 * r + k % line_columns * info.code_bits / 8);
        }
      }
    }
    p = codes + n * g.group_code_bytes();
  }
}

bool ScalesAreFinite(const Geometry& g, const uint8_t* unit) {
  const EncodingInfo& info = Info(g.encoding);
  if (info.row_scale) {
    for (int64_t r = 0; r < g.unit_rows(); ++r) {
      if ((unit[4 * r + 3] & 0x7f) == 0x7f && (unit[4 * r + 2] & 0x80) != 0) return false;
    }
  }
  if (info.scale_bytes < 2) return true;
  const int halves = info.scale_bytes / 2;  // of a group and row
  if (g.layout == Layout::kRows) {
    for (int64_t i = 0; i < g.groups() * halves; ++i) {
      if (!HalfIsFinite(unit + 2 * i)) return false;
    }
    return true;
  }
  for (int64_t first = 0; first < g.groups(); first += kBlockGroups) {
    const int n = static_cast<int>(std::min<int64_t>(kBlockGroups, g.groups() - first));
    for (int i = 0; i < n * kPanelRows * halves; ++i) {
      if (!HalfIsFinite(unit + 2 * i)) return false;
    }
    unit += g.block_bytes(n);
  }
  return true;
}

}  // namespace quire
