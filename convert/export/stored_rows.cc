#include "convert/export/stored_rows.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace quire {

StoredRows::StoredRows(const TensorView& tensor, int interleaved_heads)
    : tensor_(&tensor), rows_(tensor.geometry.rows), cols_(tensor.geometry.cols) {
  if (interleaved_heads > 0) {
    if (tensor.shape.size() == 1) std::swap(rows_, cols_);
    head_dim_ = rows_ / interleaved_heads;
  }
  row_step_ = head_dim_ > 0 ? head_dim_ : tensor.geometry.unit_rows();
}

int64_t StoredRows::StoredRow(int64_t row) const {
  if (head_dim_ == 0) return row;
  const int64_t in_head = row % head_dim_;
  return row - in_head + in_head / 2 + (in_head % 2 == 0 ? 0 : head_dim_ / 2);
}

// Calls copy(unit, row in the unit, row of the output) for each row, those of one unit together.
// `first` is a multiple of row_step, so a range holds whole heads: every row of it comes from it.
template <typename Copy>
void StoredRows::ForEachUnit(int64_t first, int64_t n, Copy copy) const {
  const int64_t unit_rows = tensor_->geometry.unit_rows();
  std::vector<std::pair<int64_t, int64_t>> rows;  // (stored, of the output)
  rows.reserve(static_cast<size_t>(n));
  for (int64_t r = 0; r < n; ++r) rows.emplace_back(StoredRow(first + r), r);
  if (head_dim_ > 0) std::sort(rows.begin(), rows.end());
  for (const auto& [stored, r] : rows) copy(stored / unit_rows, stored % unit_rows, r);
}

void StoredRows::ReadFloats(int64_t first, int64_t n, float* out) const {
  const Geometry& g = tensor_->geometry;
  std::vector<float> unit(static_cast<size_t>(g.unit_rows() * g.padded_cols()));
  int64_t decoded = -1;
  const auto decode = [&](int64_t u) {
    if (u == decoded) return;
    DecodeUnit(g, tensor_->codebook, tensor_->data, u, unit.data());
    decoded = u;
  };
  if (cols_ == 1 && g.rows == 1) {  // a vector whose elements are permuted
    decode(0);
    for (int64_t r = 0; r < n; ++r) out[r] = unit[static_cast<size_t>(StoredRow(first + r))];
    return;
  }
  ForEachUnit(first, n, [&](int64_t u, int64_t row, int64_t r) {
    decode(u);
    std::copy_n(unit.data() + row * g.padded_cols(), cols_, out + r * cols_);
  });
}

int64_t StoredRows::block_bytes() const {
  const EncodingInfo& info = Info(tensor_->geometry.encoding);
  return info.scale_bytes + kGroupColumns * info.code_bits / 8;
}

void StoredRows::ReadBlocks(int64_t first, int64_t n, uint8_t* out) const {
  const Geometry& g = tensor_->geometry;
  const int scale_bytes = Info(g.encoding).scale_bytes;
  const int64_t code_bytes = block_bytes() - scale_bytes, row_bytes = g.groups() * block_bytes();
  ForEachUnit(first, n, [&](int64_t u, int64_t row, int64_t r) {
    const uint8_t* unit = tensor_->data + u * g.unit_bytes();
    uint8_t* block = out + r * row_bytes;
    if (g.layout == Layout::kRows) {
      const uint8_t* codes = unit + RoundUp(g.groups() * scale_bytes, kLineBytes);
      for (int64_t group = 0; group < g.groups(); ++group, block += block_bytes()) {
        std::memcpy(block, unit + group * scale_bytes, scale_bytes);
        std::memcpy(block + scale_bytes, codes + group * code_bytes, code_bytes);
      }
      return;
    }
    for (int64_t from = 0; from < g.groups(); from += kBlockGroups) {
      const int groups = static_cast<int>(std::min<int64_t>(kBlockGroups, g.groups() - from));
      const uint8_t* codes = unit + RoundUp(int64_t{groups} * kPanelRows * scale_bytes, kLineBytes);
      for (int i = 0; i < groups; ++i, block += block_bytes()) {
        std::memcpy(block, unit + (i * kPanelRows + row) * scale_bytes, scale_bytes);
        // Four codes' bytes of a row lie together.
        for (int64_t k = 0; k < code_bytes; k += 4) {
          std::memcpy(block + scale_bytes + k, codes + k / 4 * kLineBytes + 4 * row, 4);
        }
        codes += g.group_code_bytes();
      }
      unit += g.block_bytes(groups);
    }
  });
}

}  // namespace quire
