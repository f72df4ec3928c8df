#include "quantize/row_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "format/half.h"
#include "quantize/kernels/kernels.h"

namespace quire {

RowPlace::RowPlace(const Geometry& geometry, int row, uint8_t* unit)
    : geometry_(geometry),
      info_(Info(geometry.encoding)),
      panels_(geometry.layout == Layout::kPanels),
      row_(row),
      unit_(unit) {}

uint8_t* RowPlace::Element(int64_t column) const {
  const int element_bytes = info_.code_bits / 8;
  if (!panels_) return unit_ + column * element_bytes;
  const int line_columns = 4 / element_bytes;
  return unit_ + column / line_columns * kLineBytes + 4 * row_ +
         column % line_columns * element_bytes;
}

uint8_t* RowPlace::GroupCodes(int64_t group) const {
  if (!panels_) {
    const int64_t head = (info_.row_scale ? 4 : 0) + geometry_.groups() * info_.scale_bytes;
    return unit_ + RoundUp(head, kLineBytes) + group * geometry_.group_code_bytes();
  }
  const int64_t first = group / kBlockGroups * kBlockGroups;
  const int64_t n = std::min<int64_t>(kBlockGroups, geometry_.groups() - first);
  return unit_ + (info_.row_scale ? 4 * kPanelRows : 0) +
         first / kBlockGroups * geometry_.block_bytes(kBlockGroups) +
         RoundUp(n * kPanelRows * info_.scale_bytes, kLineBytes) +
         (group - first) * geometry_.group_code_bytes();
}

uint8_t* RowPlace::CodeByte(int64_t column) const {
  const CodePlace place = PlaceOfCode(geometry_.encoding, static_cast<int>(geometry_.unit_rows()),
                                      row_, static_cast<int>(column % kGroupColumns));
  return GroupCodes(column / kGroupColumns) + place.low_byte;
}

uint8_t* RowPlace::Scale(int64_t group) const {
  if (!panels_) return unit_ + (info_.row_scale ? 4 : 0) + group * info_.scale_bytes;
  const int64_t in_block = group % kBlockGroups;
  return unit_ + (info_.row_scale ? 4 * kPanelRows : 0) +
         group / kBlockGroups * geometry_.block_bytes(kBlockGroups) +
         (in_block * kPanelRows + row_) * info_.scale_bytes;
}

namespace {

// A row's values, zero beyond its columns.
struct Row {
  const float* x;
  int64_t stride;
  int64_t cols, groups;

  float operator()(int64_t c) const { return c < cols ? x[c * stride] : 0.0f; }
  int64_t end(int64_t group) const { return std::min(cols, (group + 1) * kGroupColumns); }
  // The first of the elements of a group whose magnitude is largest.
  float Extreme(int64_t group) const {
    float extreme = 0;
    for (int64_t c = group * kGroupColumns; c < end(group); ++c) {
      if (std::fabs((*this)(c)) > std::fabs(extreme)) extreme = (*this)(c);
    }
    return extreme;
  }
};

// All clamps and comparisons below keep the order of operands that SIMD minimum and maximum have;
// no value is NaN.
float Clamp(float value, float min, float max) { return std::min(std::max(value, min), max); }

float Inverse(float scale) { return scale == 0 ? 0.0f : 1.0f / scale; }

struct ErrorSums {
  double error = 0, norm = 0;
  void Add(float x, float decoded) {
    const double value = x, difference = x - decoded;
    error += difference * difference;
    norm += value * value;
  }
};

template <typename T>
void Store(T value, uint8_t* p) {
  std::memcpy(p, &value, sizeof value);
}

void EncodeFloats(const Geometry& geometry, const Row& row, const RowPlace& place,
                  ErrorSums* sums) {
  for (int64_t c = 0; c < row.cols; ++c) {
    const float x = row(c);
    float decoded = x;
    if (geometry.encoding == Encoding::kF16) {
      const uint16_t bits = FloatToHalf(Clamp(x, -kMaxHalf, kMaxHalf));
      Store(bits, place.Element(c));
      decoded = HalfToFloat(bits);
    } else if (geometry.encoding == Encoding::kBF16) {
      const uint16_t bits = FloatToBfloat16(Clamp(x, -kMaxBfloat16, kMaxBfloat16));
      Store(bits, place.Element(c));
      decoded = Bfloat16ToFloat(bits);
    } else {
      Store(x, place.Element(c));
    }
    sums->Add(x, decoded);
  }
}

// The 16-bit float nearest to extreme / divisor, or the next larger where the extreme would else
// lie more than half a step beyond divisor, as the coarse steps of subnormals make possible.
uint16_t HalfScale(float extreme, float divisor) {
  uint16_t scale = FloatToHalf(Clamp(extreme / divisor, -kMaxHalf, kMaxHalf));
  const float reach = (std::fabs(divisor) + 0.5f) * std::fabs(HalfToFloat(scale));
  if (std::fabs(extreme) > reach && (scale & 0x7fff) < 0x7bff) ++scale;
  return scale;
}

// q8: the largest magnitude becomes 127. q4_0: the extreme becomes -8.
RowScales ChooseHalfScales(Encoding encoding, const Row& row) {
  RowScales scales;
  for (int64_t g = 0; g < row.groups; ++g) {
    const float extreme = row.Extreme(g);
    scales.groups.push_back(HalfToFloat(encoding == Encoding::kQ8
                                            ? HalfScale(std::fabs(extreme), 127.0f)
                                            : HalfScale(extreme, -8.0f)));
  }
  return scales;
}

// q4_1: the smallest element becomes 0, the largest 15.
RowScales ChooseScalesAndMinimums(const Row& row) {
  RowScales scales;
  for (int64_t g = 0; g < row.groups; ++g) {
    float min = row(g * kGroupColumns), max = min;
    for (int64_t c = g * kGroupColumns; c < row.end(g); ++c) {
      min = std::min(min, row(c));
      max = std::max(max, row(c));
    }
    const float minimum = HalfToFloat(FloatToHalf(Clamp(min, -kMaxHalf, kMaxHalf)));
    scales.groups.push_back(HalfToFloat(HalfScale(std::max(max - minimum, 0.0f), 15.0f)));
    scales.minimums.push_back(minimum);
  }
  return scales;
}

// q4, q5, q6: x = row scale * z, and a group of z decodes to integers, its scale (-127..127) times
// levels.
struct ScaleSearch {
  const Row& row;
  const Levels& levels;
  const float* weights;

  float Weight(int64_t c) const { return weights == nullptr ? 1.0f : weights[c]; }
  float Integer(float z, float scale) const {
    return scale * levels.Nearest(z * Inverse(scale)).value;
  }

  // sum w (z - decoded z)^2.
  float Error(int64_t group, float inverse, float scale) const {
    float error = 0;
    for (int64_t c = group * kGroupColumns; c < row.end(group); ++c) {
      const float z = row(c) * inverse, difference = z - Integer(z, scale);
      error += Weight(c) * (difference * difference);
    }
    return error;
  }

  // The group scale of least error among the candidates; `first` is the scale that maps the extreme
  // onto the top level.
  float BestScale(int64_t group, float inverse, float first) const {
    const float z = first * inverse;
    const float* factors = weights == nullptr ? kPlainFactors : kWeightedFactors;
    const int n = weights == nullptr ? kNumPlainFactors : kNumWeightedFactors;
    float best = 0, best_error = 0;
    for (int i = 0; i < n; ++i) {
      const float scale = std::nearbyint(Clamp(z * factors[i], -127.0f, 127.0f));
      const float error = Error(group, inverse, scale);
      if (i == 0 || error < best_error) best = scale, best_error = error;
    }
    return best;
  }

  // The row scale of least error for these group scales and the codes they lead to: sum w z v / sum
  // w v^2 times the present one, v the decoded integers.
  float RefitRowScale(float row_scale, const std::vector<float>& scales) const {
    const float inverse = 1.0f / row_scale;
    double dot = 0, norm = 0;
    for (int64_t g = 0; g < row.groups; ++g) {
      float group_dot = 0, group_norm = 0;
      for (int64_t c = g * kGroupColumns; c < row.end(g); ++c) {
        const float z = row(c) * inverse, value = Integer(z, scales[g]),
                    weighted = Weight(c) * value;
        group_dot += weighted * z;
        group_norm += weighted * value;
      }
      dot += group_dot;
      norm += group_norm;
    }
    const double ratio = dot / norm;  // NaN where every code means zero
    if (!(ratio > 0.5 && ratio < 2)) return row_scale;
    return Clamp(row_scale * static_cast<float>(ratio), kMinRowScale, kMaxRowScale);
  }
};

RowScales SearchScales(const Row& row, const Levels& levels, const float* column_weights) {
  const ScaleSearch search{row, levels, column_weights};
  RowScales scales{0, std::vector<float>(row.groups), {}};
  float largest = 0;
  for (int64_t g = 0; g < row.groups; ++g) {
    scales.groups[g] = row.Extreme(g) / levels.top;
    largest = std::max(largest, std::fabs(scales.groups[g]));
  }
  if (largest > 0) {
    scales.row = Clamp(largest * (kLargestFactor / 127.0f), kMinRowScale, kMaxRowScale);
    for (int64_t g = 0; g < row.groups; ++g) {
      scales.groups[g] = search.BestScale(g, 1.0f / scales.row, scales.groups[g]);
    }
    scales.row = search.RefitRowScale(scales.row, scales.groups);
  }
  return scales;
}

}  // namespace

Levels::Levels(Encoding encoding, const int8_t* values)
    : codebook(values), size(1 << Info(encoding).code_bits), min(0), max(0), top(0) {
  if (codebook != nullptr) {
    top = codebook[size - 1] >= -codebook[0] ? codebook[size - 1] : codebook[0];
    return;
  }
  min = encoding == Encoding::kQ4_1 ? 0.0f : static_cast<float>(-size / 2);
  if (encoding == Encoding::kQ8) min = -127;
  max = encoding == Encoding::kQ4_1 ? 15.0f : static_cast<float>(size / 2 - 1);
  top = max >= -min ? max : min;
}

Levels::Level Levels::Nearest(float y) const {
  if (codebook == nullptr) {
    const float value = std::nearbyint(Clamp(y, min, max));
    return {static_cast<int>(value - min), value};
  }
  int code = 0;
  for (int step = size / 2; step > 0; step /= 2) {
    const int next = code + step;
    if (y >= 0.5f * static_cast<float>(codebook[next - 1] + codebook[next])) code = next;
  }
  return {code, static_cast<float>(codebook[code])};
}

RowScales ChooseScales(const Geometry& geometry, const RowInput& input) {
  const Row row{input.x, input.stride, geometry.cols, geometry.groups()};
  if (Info(geometry.encoding).row_scale) {
    return SearchScales(row, Levels(geometry.encoding, input.codebook), input.column_weights);
  }
  return geometry.encoding == Encoding::kQ4_1 ? ChooseScalesAndMinimums(row)
                                              : ChooseHalfScales(geometry.encoding, row);
}

RowGrid::RowGrid(Encoding encoding, const int8_t* codebook, const RowScales& scales)
    : encoding_(encoding),
      levels_(encoding, codebook),
      scales_(scales),
      row_inverse_(Inverse(scales.row)) {
  for (const float scale : scales.groups) group_inverses_.push_back(Inverse(scale));
}

RowGrid::Point RowGrid::Nearest(int64_t column, float x) const {
  const int64_t group = column / kGroupColumns;
  const float scale = scales_.row * scales_.groups[group];
  if (encoding_ == Encoding::kQ4_1) {
    const float minimum = scales_.minimums[group];
    const Levels::Level level = levels_.Nearest((x - minimum) * group_inverses_[group]);
    return {level.code, scale * level.value + minimum};
  }
  const Levels::Level level = levels_.Nearest(x * row_inverse_ * group_inverses_[group]);
  const int code = encoding_ == Encoding::kQ8 ? static_cast<int>(level.value) : level.code;
  return {code, scale * level.value};
}

void RowPlace::StoreScales(const RowScales& scales) const {
  if (info_.row_scale) Store(scales.row, RowScale());
  for (size_t g = 0; g < scales.groups.size(); ++g) {
    uint8_t* scale = Scale(static_cast<int64_t>(g));
    if (info_.scale_bytes == 1) {
      Store(static_cast<int8_t>(scales.groups[g]), scale);
    } else {
      Store(FloatToHalf(scales.groups[g]), scale);
    }
    if (!scales.minimums.empty()) Store(FloatToHalf(scales.minimums[g]), scale + 2);
  }
}

void RowPlace::StoreCode(int64_t column, int code) const {
  const CodePlace place = PlaceOfCode(geometry_.encoding, static_cast<int>(geometry_.unit_rows()),
                                      row_, static_cast<int>(column % kGroupColumns));
  uint8_t* group = GroupCodes(column / kGroupColumns);
  if (info_.code_bits == 8) {
    group[place.low_byte] = static_cast<uint8_t>(code);
    return;
  }
  group[place.low_byte] |= static_cast<uint8_t>((code & 15) << place.low_shift);
  if (info_.code_bits > 4) {
    group[place.high_byte] |= static_cast<uint8_t>(code >> 4 << place.high_shift);
  }
}

void EncodeRow(const Geometry& geometry, const RowInput& input, int row, uint8_t* unit,
               double* squared_error, double* squared_norm) {
  const Row values{input.x, input.stride, geometry.cols, geometry.groups()};
  const RowPlace place(geometry, row, unit);
  ErrorSums sums;
  if (Info(geometry.encoding).scale_bytes == 0) {
    EncodeFloats(geometry, values, place, &sums);
  } else {
    const RowScales scales = ChooseScales(geometry, input);
    const RowGrid grid(geometry.encoding, input.codebook, scales);
    place.StoreScales(scales);
    for (int64_t c = 0; c < geometry.padded_cols(); ++c) {
      const RowGrid::Point point = grid.Nearest(c, values(c));
      place.StoreCode(c, point.code);
      if (c < values.cols) sums.Add(values(c), point.value);
    }
  }
  *squared_error += sums.error;
  *squared_norm += sums.norm;
}

}  // namespace quire
