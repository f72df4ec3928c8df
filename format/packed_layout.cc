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

// The integer that a code stands for, before scales. `index` counts codes from `codes`.
int IntegerValue(Encoding encoding, const int8_t* codebook, int byte, bool high_nibble) {
  if (encoding == Encoding::kQ8) return static_cast<int8_t>(byte);
  const int nibble = high_nibble ? byte >> 4 : byte & 15;
  return encoding == Encoding::kQ4 ? codebook[nibble] : nibble - 8;
}

float GroupScale(Encoding encoding, const uint8_t* scales, int64_t index) {
  if (encoding == Encoding::kQ4) return static_cast<int8_t>(scales[index]);
  return HalfToFloat(Load<uint16_t>(scales + 2 * index));
}

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
    const float row_scale = info.row_scale ? Load<float>(p) : 1.0f;
    const uint8_t* scales = p + (info.row_scale ? 4 : 0);
    const uint8_t* codes =
        p + RoundUp((info.row_scale ? 4 : 0) + g.groups() * info.scale_bytes, kLineBytes);
    for (int64_t c = 0; c < stride; ++c) {
      const int64_t group = c / kGroupColumns, k = c % kGroupColumns;
      const uint8_t* code =
          codes + group * g.group_code_bytes() + (info.code_bits == 4 ? k % 16 : k);
      out[c] = row_scale * GroupScale(g.encoding, scales, group) *
               static_cast<float>(IntegerValue(g.encoding, codebook, *code, k >= 16));
    }
    return;
  }
  float row_scale[kPanelRows];
  for (int r = 0; r < kPanelRows; ++r)
    row_scale[r] = info.row_scale ? Load<float>(p + 4 * r) : 1.0f;
  if (info.row_scale) p += kPanelRows * 4;
  const int line_columns =
      32 / info.code_bits;  // columns of a row in one line; 8 of 4-bit codes, in two halves
  for (int64_t first = 0; first < g.groups(); first += kBlockGroups) {
    const int n = static_cast<int>(std::min<int64_t>(kBlockGroups, g.groups() - first));
    const uint8_t* codes = p + RoundUp(int64_t{n} * kPanelRows * info.scale_bytes, kLineBytes);
    for (int i = 0; i < n; ++i) {
      const uint8_t* group = codes + i * g.group_code_bytes();
      for (int r = 0; r < kPanelRows; ++r) {
        float* row = out + r * stride + (first + i) * kGroupColumns;
        for (int k = 0; k < kGroupColumns; ++k) {
          if (info.scale_bytes == 0) {
            const uint8_t* line = group + k / line_columns * kLineBytes;
            row[k] = LoadFloat(g.encoding, line + 4 * r + k % line_columns * info.code_bits / 8);
            continue;
          }
          const int column = info.code_bits == 4 ? k % 16 : k;
          const uint8_t code = group[column / 4 * kLineBytes + 4 * r + column % 4];
          row[k] = row_scale[r] * GroupScale(g.encoding, p, i * kPanelRows + r) *
                   static_cast<float>(IntegerValue(g.encoding, codebook, code, k >= 16));
        }
      }
    }
    p = codes + n * g.group_code_bytes();
  }
}

}  // namespace quire
