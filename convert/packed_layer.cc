#include "convert/packed_layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "convert/quote.h"
#include "format/half.h"

namespace quire {
namespace {

constexpr int kWordCodes = 8, kWordBytes = 4;
constexpr int kBlockColumns = 32;
constexpr int kAwqOrder[kWordCodes] = {0, 2, 4, 6, 1, 3, 5, 7};

const SourceTensor& TensorAt(const TensorSource& source, int index) {
  return source.tensors()[static_cast<size_t>(index)];
}

absl::Status WantShape(const TensorSource& source, int index, std::vector<int64_t> shape,
                       absl::Span<const DType> dtypes) {
  const SourceTensor& tensor = TensorAt(source, index);
  if (tensor.shape == shape && std::count(dtypes.begin(), dtypes.end(), tensor.dtype) > 0)
    return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      Quote(tensor.name), " is ", Info(tensor.dtype).name, " [", absl::StrJoin(tensor.shape, ", "),
      "], wanted ", Info(dtypes.front()).name, " [", absl::StrJoin(shape, ", "), "]"));
}

constexpr DType kWords[] = {DType::kI32};
constexpr DType kFloats[] = {DType::kF16, DType::kBF16, DType::kF32};

// Elements [begin, begin + count) of a tensor, as they are.
absl::Status ReadRaw(const TensorSource& source, int index, int64_t begin, int64_t count,
                     void* out) {
  const int64_t bytes = count * Info(TensorAt(source, index).dtype).block_bytes;
  return source.Read(index, begin, count,
                     absl::MakeSpan(static_cast<uint8_t*>(out), static_cast<size_t>(bytes)));
}

// A part of a row-major matrix, row after row, as it is. One read where the rows are whole.
absl::Status ReadPart(const TensorSource& source, int index, int64_t first, int64_t n,
                      int64_t column, int64_t columns, void* out) {
  const SourceTensor& tensor = TensorAt(source, index);
  const int64_t cols = tensor.shape[1];
  if (columns == cols) return ReadRaw(source, index, first * cols, n * cols, out);
  const int64_t row_bytes = columns * Info(tensor.dtype).block_bytes;
  for (int64_t r = 0; r < n; ++r) {
    absl::Status status = ReadRaw(source, index, (first + r) * cols + column, columns,
                                  static_cast<uint8_t*>(out) + r * row_bytes);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

int Nibble(uint32_t word, int64_t k) { return word >> 4 * k & 15; }

// Codes [n][columns] of a rectangle.
absl::Status ReadCodes(const TensorSource& source, const PackedLayer& layer, int64_t first,
                       int64_t n, int64_t column, int64_t columns, std::vector<uint8_t>* codes) {
  codes->resize(static_cast<size_t>(n * columns));
  uint8_t* out = codes->data();
  // The words that cover `count` packed elements from `begin`.
  const auto first_word = [](int64_t begin) { return begin / kWordCodes; };
  const auto n_words = [](int64_t begin, int64_t count) {
    return (begin + count + kWordCodes - 1) / kWordCodes - begin / kWordCodes;
  };
  std::vector<uint32_t> words;
  const auto read = [&](int64_t r, int64_t rows, int64_t c, int64_t cols) {
    words.resize(static_cast<size_t>(rows * cols));
    return ReadPart(source, layer.codes, r, rows, c, cols, words.data());
  };
  if (layer.packing == Packing::kCompressedTensors) {
    const int64_t stride = n_words(column, columns), skip = column % kWordCodes;
    absl::Status status = read(first, n, first_word(column), stride);
    if (!status.ok()) return status;
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t k = c + skip;
        *out++ = static_cast<uint8_t>(
            Nibble(words[static_cast<size_t>(r * stride + k / kWordCodes)], k % kWordCodes));
      }
    }
    return absl::OkStatus();
  }
  if (layer.packing == Packing::kGptq) {
    absl::Status status = read(first_word(column), n_words(column, columns), first, n);
    if (!status.ok()) return status;
    const int64_t skip = column % kWordCodes;
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t k = c + skip;
        *out++ = static_cast<uint8_t>(
            Nibble(words[static_cast<size_t>(k / kWordCodes * n + r)], k % kWordCodes));
      }
    }
    return absl::OkStatus();
  }
  const int64_t stride = n_words(first, n), skip = first % kWordCodes;
  absl::Status status = read(column, columns, first_word(first), stride);
  if (!status.ok()) return status;
  int place[kWordCodes];  // in the word, of each element
  for (int k = 0; k < kWordCodes; ++k) place[kAwqOrder[k]] = k;
  for (int64_t r = 0; r < n; ++r) {
    const int64_t k = r + skip;
    for (int64_t c = 0; c < columns; ++c) {
      *out++ = static_cast<uint8_t>(
          Nibble(words[static_cast<size_t>(c * stride + k / kWordCodes)], place[k % kWordCodes]));
    }
  }
  return absl::OkStatus();
}

// Scales [n][groups] of rows.
absl::Status ReadScales(const TensorSource& source, const PackedLayer& layer, int64_t first,
                        int64_t n, std::vector<float>* scales) {
  const DType dtype = TensorAt(source, layer.scales).dtype;
  const int64_t count = n * layer.groups;
  std::vector<uint8_t> raw(static_cast<size_t>(count * Info(dtype).block_bytes));
  std::vector<float> values(static_cast<size_t>(count));
  scales->resize(static_cast<size_t>(count));
  const bool by_row = layer.packing == Packing::kCompressedTensors;
  absl::Status status = by_row
                            ? ReadPart(source, layer.scales, first, n, 0, layer.groups, raw.data())
                            : ReadPart(source, layer.scales, 0, layer.groups, first, n, raw.data());
  if (!status.ok()) return status;
  DecodeToFloat(dtype, raw, absl::MakeSpan(values));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t g = 0; g < layer.groups; ++g) {
      const float scale = values[static_cast<size_t>(by_row ? r * layer.groups + g : g * n + r)];
      if (!std::isfinite(scale)) {
        return absl::FailedPreconditionError(
            absl::StrCat(Quote(TensorAt(source, layer.scales).name), ": the scale of row ",
                         first + r, ", group ", g, " is not finite"));
      }
      (*scales)[static_cast<size_t>(r * layer.groups + g)] = scale;
    }
  }
  return absl::OkStatus();
}

// Zero points [n][groups] of rows.
absl::Status ReadZeros(const TensorSource& source, const PackedLayer& layer, int64_t first,
                       int64_t n, std::vector<int>* zeros) {
  zeros->assign(static_cast<size_t>(n * layer.groups), 8);
  if (layer.zeros < 0) return absl::OkStatus();
  const int64_t from = first / kWordCodes,
                words_of_rows = (first + n + kWordCodes - 1) / kWordCodes - from;
  std::vector<uint32_t> words(static_cast<size_t>(words_of_rows * layer.groups));
  const bool by_row = layer.packing == Packing::kCompressedTensors;
  absl::Status status =
      by_row ? ReadPart(source, layer.zeros, from, words_of_rows, 0, layer.groups, words.data())
             : ReadPart(source, layer.zeros, 0, layer.groups, from, words_of_rows, words.data());
  if (!status.ok()) return status;
  int place[kWordCodes];
  for (int k = 0; k < kWordCodes; ++k) place[layer.packing == Packing::kAwq ? kAwqOrder[k] : k] = k;
  for (int64_t r = 0; r < n; ++r) {
    const int64_t k = first + r - from * kWordCodes, word = k / kWordCodes;
    for (int64_t g = 0; g < layer.groups; ++g) {
      const uint32_t packed =
          words[static_cast<size_t>(by_row ? word * layer.groups + g : g * words_of_rows + word)];
      (*zeros)[static_cast<size_t>(r * layer.groups + g)] =
          Nibble(packed, place[k % kWordCodes]) + layer.zero_offset;
    }
  }
  return absl::OkStatus();
}

absl::Status SetDimensions(const TensorSource& source, PackedLayer* layer) {
  for (int part : {layer->codes, layer->scales}) {
    if (TensorAt(source, part).shape.size() == 2) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(Quote(TensorAt(source, part).name), " is no matrix"));
  }
  const std::vector<int64_t>& codes = TensorAt(source, layer->codes).shape;
  const std::vector<int64_t>& scales = TensorAt(source, layer->scales).shape;
  switch (layer->packing) {
    case Packing::kCompressedTensors: {
      absl::Status status = WantShape(source, layer->shape, {2}, {DType::kI64, DType::kI32});
      if (!status.ok()) return status;
      int64_t wide[2];
      int32_t narrow[2];
      const bool is_wide = TensorAt(source, layer->shape).dtype == DType::kI64;
      status = ReadRaw(source, layer->shape, 0, 2,
                       is_wide ? static_cast<void*>(wide) : static_cast<void*>(narrow));
      if (!status.ok()) return status;
      layer->rows = is_wide ? wide[0] : narrow[0];
      layer->cols = is_wide ? wide[1] : narrow[1];
      layer->groups = scales[1];
      break;
    }
    case Packing::kGptq:
      layer->rows = codes[1];
      layer->cols = codes[0] <= INT64_MAX / kWordCodes ? codes[0] * kWordCodes : 0;
      layer->groups = scales[0];
      break;
    case Packing::kAwq:
      layer->rows = codes[1] <= INT64_MAX / kWordCodes ? codes[1] * kWordCodes : 0;
      layer->cols = codes[0];
      layer->groups = scales[0];
      break;
  }
  // So that what follows cannot overflow; shapes that agree are those of bytes that are there.
  constexpr int64_t kMax = int64_t{1} << 31;
  if (layer->rows < 1 || layer->cols < 1 || layer->groups < 1 || layer->rows > kMax ||
      layer->cols > kMax || layer->groups > layer->cols || layer->cols % layer->groups != 0) {
    return absl::InvalidArgumentError(absl::StrCat(Quote(layer->name), ": ", layer->rows,
                                                   " rows of ", layer->cols, " columns in ",
                                                   layer->groups, " groups of scales"));
  }
  return absl::OkStatus();
}

absl::Status CheckShapes(const TensorSource& source, const PackedLayer& layer) {
  const auto words = [](int64_t n) { return (n + kWordCodes - 1) / kWordCodes; };
  const int64_t rows = layer.rows, cols = layer.cols, groups = layer.groups;
  absl::Status status;
  switch (layer.packing) {
    case Packing::kCompressedTensors:
      status.Update(WantShape(source, layer.codes, {rows, words(cols)}, kWords));
      status.Update(WantShape(source, layer.scales, {rows, groups}, kFloats));
      if (layer.zeros >= 0)
        status.Update(WantShape(source, layer.zeros, {words(rows), groups}, kWords));
      break;
    case Packing::kGptq:
      status.Update(WantShape(source, layer.codes, {cols / kWordCodes, rows}, kWords));
      status.Update(WantShape(source, layer.scales, {groups, rows}, kFloats));
      status.Update(WantShape(source, layer.zeros, {groups, words(rows)}, kWords));
      break;
    case Packing::kAwq:
      status.Update(WantShape(source, layer.codes, {cols, rows / kWordCodes}, kWords));
      status.Update(WantShape(source, layer.scales, {groups, rows}, kFloats));
      status.Update(WantShape(source, layer.zeros, {groups, words(rows)}, kWords));
      break;
  }
  if (layer.order >= 0) status.Update(WantShape(source, layer.order, {cols}, kWords));
  return status;
}

// Sets group_of_column where the columns of a group do not lie together.
absl::Status ReadOrder(const TensorSource& source, PackedLayer* layer) {
  if (layer->order < 0) return absl::OkStatus();
  std::vector<int32_t> groups(static_cast<size_t>(layer->cols));
  absl::Status status = ReadRaw(source, layer->order, 0, layer->cols, groups.data());
  if (!status.ok()) return status;
  bool in_order = true;
  for (int64_t c = 0; c < layer->cols; ++c) {
    const int32_t group = groups[static_cast<size_t>(c)];
    if (group < 0 || group >= layer->groups) {
      return absl::InvalidArgumentError(absl::StrCat(Quote(TensorAt(source, layer->order).name),
                                                     ": column ", c, " is of group ", group, " of ",
                                                     layer->groups));
    }
    in_order &= group == c / layer->group_columns();
  }
  if (!in_order) layer->group_of_column = std::move(groups);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPackedLayer(const TensorSource& source, int64_t group_size, PackedLayer* layer) {
  absl::Status status = SetDimensions(source, layer);
  if (status.ok()) status = CheckShapes(source, *layer);
  if (status.ok()) status = ReadOrder(source, layer);
  if (!status.ok()) return status;
  const int64_t wanted = group_size == -1 ? layer->cols : group_size;
  if (wanted != 0 && wanted != layer->group_columns() && wanted <= layer->cols) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quote(layer->name), ": a scale for each ", layer->group_columns(),
                     " columns, its configuration says ", group_size));
  }
  return absl::OkStatus();
}

absl::Status FindObstacles(const TensorSource& source, PackedLayer* layer) {
  if (!layer->group_of_column.empty()) {
    layer->obstacle =
        "its columns are in an order of their own (desc_act), and columns that share a scale have "
        "to lie together";
    return absl::OkStatus();
  }
  if (layer->cols % kBlockColumns != 0 || layer->group_columns() % kBlockColumns != 0) {
    layer->obstacle = absl::StrCat("its ", layer->cols, " columns in groups of ",
                                   layer->group_columns(), " are no multiples of 32");
    return absl::OkStatus();
  }
  const bool half = TensorAt(source, layer->scales).dtype == DType::kF16;
  constexpr int64_t kRows = 1024;
  std::vector<float> scales;
  std::vector<int> zeros;
  for (int64_t first = 0; first < layer->rows; first += kRows) {
    const int64_t n = std::min(kRows, layer->rows - first);
    absl::Status status = ReadZeros(source, *layer, first, n, &zeros);
    if (status.ok() && !half) status = ReadScales(source, *layer, first, n, &scales);
    if (!status.ok()) return status;
    layer->asymmetric |= std::any_of(zeros.begin(), zeros.end(), [](int z) { return z != 8; });
    const auto odd = std::find_if(scales.begin(), scales.end(), [](float scale) {
      return HalfToFloat(FloatToHalf(scale)) != scale;
    });
    if (odd == scales.end()) continue;
    const int64_t i = odd - scales.begin();
    layer->obstacle = absl::StrCat("a scale is no 16-bit float (row ", first + i / layer->groups,
                                   ", group ", i % layer->groups, ": ", *odd, ")");
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status ReadBlocks(const TensorSource& source, const PackedLayer& layer, int64_t first,
                        int64_t n, int64_t column, int64_t columns, uint8_t* out) {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<int> zeros;
  absl::Status status = ReadCodes(source, layer, first, n, column, columns, &codes);
  if (status.ok()) status = ReadScales(source, layer, first, n, &scales);
  if (status.ok() && layer.asymmetric) status = ReadZeros(source, layer, first, n, &zeros);
  if (!status.ok()) return status;
  const auto store = [&out](float value) {
    const uint16_t half = FloatToHalf(value);
    std::memcpy(out, &half, sizeof half);
    out += sizeof half;
    return std::isfinite(HalfToFloat(half));
  };
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < columns; c += kBlockColumns) {
      const int64_t group = (column + c) / layer.group_columns();
      const auto i = static_cast<size_t>(r * layer.groups + group);
      store(scales[i]);
      if (layer.asymmetric && !store(-scales[i] * static_cast<float>(zeros[i]))) {
        return absl::FailedPreconditionError(
            absl::StrCat(Quote(layer.name), ": the zero point of row ", first + r, ", group ",
                         group, " times its scale is beyond a 16-bit float"));
      }
      const uint8_t* code = codes.data() + r * columns + c;
      for (int j = 0; j < kBlockColumns / 2; ++j)
        *out++ = static_cast<uint8_t>(code[j] | code[kBlockColumns / 2 + j] << 4);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadWeights(const TensorSource& source, const PackedLayer& layer, int64_t first,
                         int64_t n, int64_t column, int64_t columns, float* out) {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<int> zeros;
  absl::Status status = ReadCodes(source, layer, first, n, column, columns, &codes);
  if (status.ok()) status = ReadScales(source, layer, first, n, &scales);
  if (status.ok()) status = ReadZeros(source, layer, first, n, &zeros);
  if (!status.ok()) return status;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t group = layer.group_of_column.empty()
                                ? (column + c) / layer.group_columns()
                                : layer.group_of_column[static_cast<size_t>(column + c)];
      const auto i = static_cast<size_t>(r * layer.groups + group);
      *out++ =
          scales[i] * static_cast<float>(codes[static_cast<size_t>(r * columns + c)] - zeros[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace quire
