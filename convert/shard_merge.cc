#include "convert/shard_merge.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "convert/architecture.h"
#include "convert/quote.h"

namespace quire {
namespace {

// Bytes of a shard that are read at once when columns are joined.
constexpr int64_t kScratchBytes = 256 << 10;

// Where one part of a tensor is.
struct Part {
  int shard;
  int index;  // in the shard
};

// A tensor, made of equal parts.
struct Joined {
  std::vector<Part> parts;
  bool by_columns = false;
};

std::string ShapeText(const SourceTensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]");
}

class MergedSource : public TensorSource {
 public:
  explicit MergedSource(std::vector<Shard> shards) : shards_(std::move(shards)) {}

  void Add(SourceTensor tensor, Joined joined) {
    tensors_.push_back(std::move(tensor));
    aliases_.push_back(AliasOf(joined));
    joined_.push_back(std::move(joined));
  }
  const std::vector<Shard>& shards() const { return shards_; }

  absl::string_view container() const override { return shards_.front().source->container(); }
  absl::Span<const SourceTensor> tensors() const override { return tensors_; }
  absl::Span<const std::pair<std::string, std::string>> metadata() const override { return {}; }
  int Alias(int index) const override { return aliases_[static_cast<size_t>(index)]; }

  absl::Status Read(int index, int64_t begin, int64_t count,
                    absl::Span<uint8_t> out) const override {
    const Joined& joined = joined_[static_cast<size_t>(index)];
    if (joined.parts.size() == 1) {
      return Source(joined.parts[0]).Read(joined.parts[0].index, begin, count, out);
    }
    return joined.by_columns ? ReadColumns(index, begin, count, out)
                             : ReadRows(index, begin, count, out);
  }

  absl::Status Verify(int index) const override {
    for (const Part& part : joined_[static_cast<size_t>(index)].parts) {
      absl::Status status = Source(part).Verify(part.index);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  std::vector<std::pair<std::string, int64_t>> files() const override {
    std::vector<std::pair<std::string, int64_t>> all;
    for (const Shard& shard : shards_) {
      for (auto& file : shard.source->files()) all.push_back(std::move(file));
    }
    return all;
  }

 private:
  const TensorSource& Source(const Part& part) const {
    return *shards_[static_cast<size_t>(part.shard)].source;
  }

  // Tensors are the same memory where all their parts are.
  int AliasOf(const Joined& joined) {
    std::vector<std::pair<int, int>> key;
    for (const Part& part : joined.parts) {
      key.emplace_back(part.shard, Source(part).Alias(part.index));
      if (key.back().second < 0) return -1;
    }
    return alias_ids_.emplace(std::move(key), static_cast<int>(alias_ids_.size())).first->second;
  }

  // The parts follow each other.
  absl::Status ReadRows(int index, int64_t begin, int64_t count, absl::Span<uint8_t> out) const {
    const SourceTensor& tensor = tensors_[static_cast<size_t>(index)];
    const Joined& joined = joined_[static_cast<size_t>(index)];
    const int64_t part_elements = tensor.elements() / static_cast<int64_t>(joined.parts.size());
    const int64_t element_bytes = Info(tensor.dtype).block_bytes;
    while (count > 0) {
      const Part& part = joined.parts[static_cast<size_t>(begin / part_elements)];
      const int64_t in_part = begin % part_elements;
      const int64_t n = std::min(count, part_elements - in_part);
      const auto bytes = static_cast<size_t>(n * element_bytes);
      absl::Status status = Source(part).Read(part.index, in_part, n, out.subspan(0, bytes));
      if (!status.ok()) return status;
      out.remove_prefix(bytes);
      begin += n;
      count -= n;
    }
    return absl::OkStatus();
  }

  // Each row is a piece of every part. Whole rows of a part are read at a time.
  absl::Status ReadColumns(int index, int64_t begin, int64_t count, absl::Span<uint8_t> out) const {
    const SourceTensor& tensor = tensors_[static_cast<size_t>(index)];
    const Joined& joined = joined_[static_cast<size_t>(index)];
    const int64_t bytes = Info(tensor.dtype).block_bytes;
    const int64_t cols = tensor.shape[1];
    const int64_t part_cols = cols / static_cast<int64_t>(joined.parts.size());
    const int64_t end = begin + count;
    const int64_t last_row = (end + cols - 1) / cols;
    const int64_t rows_at_once = std::max<int64_t>(1, kScratchBytes / (part_cols * bytes));
    std::vector<uint8_t> scratch;
    for (int64_t row = begin / cols; row < last_row; row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, last_row - row);
      scratch.resize(static_cast<size_t>(rows * part_cols * bytes));
      for (size_t p = 0; p < joined.parts.size(); ++p) {
        const Part& part = joined.parts[p];
        absl::Status status = Source(part).Read(part.index, row * part_cols, rows * part_cols,
                                                absl::MakeSpan(scratch));
        if (!status.ok()) return status;
        for (int64_t r = 0; r < rows; ++r) {
          // The piece's place in the whole tensor, cut to what is asked for.
          const int64_t piece = (row + r) * cols + static_cast<int64_t>(p) * part_cols;
          const int64_t from = std::max(piece, begin), to = std::min(piece + part_cols, end);
          if (from >= to) continue;
          std::memcpy(out.data() + (from - begin) * bytes,
                      scratch.data() + (r * part_cols + from - piece) * bytes,
                      static_cast<size_t>((to - from) * bytes));
        }
      }
    }
    return absl::OkStatus();
  }

  const std::vector<Shard> shards_;
  std::vector<SourceTensor> tensors_;
  std::vector<Joined> joined_;
  std::vector<int> aliases_;
  std::map<std::vector<std::pair<int, int>>, int> alias_ids_;
};

// "layers.12.attention.wq.weight" -> "layers.*.attention.wq.weight".
std::string Pattern(const std::string& name) {
  std::vector<std::string> steps = absl::StrSplit(name, '.');
  for (std::string& step : steps) {
    if (!step.empty() && std::all_of(step.begin(), step.end(), absl::ascii_isdigit)) step = "*";
  }
  return absl::StrJoin(steps, ".");
}

JoinAxis AxisOf(const std::string& name) {
  const std::string pattern = Pattern(name);
  for (const TensorNames& row : TensorNameTable()) {
    if (pattern == row.meta) return row.join;
  }
  return JoinAxis::kReplicated;
}

using Index = absl::flat_hash_map<std::string, int>;

Index IndexOf(const TensorSource& source) {
  Index index;
  for (const SourceTensor& tensor : source.tensors()) {
    index.emplace(tensor.name, static_cast<int>(index.size()));
  }
  return index;
}

absl::Status DoNotFit(const std::string& tensor, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor-parallel shards do not fit together: ", Quote(tensor), " ", what));
}

// The length of "norm.weight", which every shard has whole.
absl::StatusOr<int64_t> HiddenDim(const Shard& shard) {
  for (const SourceTensor& tensor : shard.source->tensors()) {
    if (tensor.name == "norm.weight" && tensor.shape.size() == 1) return tensor.shape[0];
  }
  return absl::NotFoundError(
      absl::StrCat(shard.name, ": no 'norm.weight', which tells how wide the embedding is"));
}

// The tensor that the parts make, and along which axis. `first` is the first shard's part, which
// all others equal in shape.
absl::StatusOr<Joined> PlanJoin(const SourceTensor& first, int64_t hidden_dim, int n_shards,
                                SourceTensor* whole) {
  JoinAxis axis = AxisOf(first.name);
  const bool matrix = first.shape.size() == 2;
  if (axis == JoinAxis::kEmbedding) {
    if (!matrix) return DoNotFit(first.name, "is no matrix");
    if (first.shape[1] != hidden_dim && first.shape[1] != hidden_dim / n_shards) {
      return DoNotFit(first.name, absl::StrCat("is ", ShapeText(first), " in each of ", n_shards,
                                               " shards, beside norms of ", hidden_dim));
    }
    axis = first.shape[1] == hidden_dim ? JoinAxis::kRows : JoinAxis::kColumns;
  }
  const bool fits = axis == JoinAxis::kReplicated || (axis == JoinAxis::kColumns && matrix) ||
                    (axis == JoinAxis::kRows && !first.shape.empty());
  if (!fits || first.elements() == 0 || Info(first.dtype).block_elements != 1) {
    return DoNotFit(first.name, absl::StrCat("is ", Info(first.dtype).name, " ", ShapeText(first)));
  }
  *whole = first;
  Joined joined;
  if (axis != JoinAxis::kReplicated) {
    int64_t& joined_size = whole->shape[axis == JoinAxis::kColumns ? 1 : 0];
    if (joined_size > INT64_MAX / n_shards || whole->elements() > INT64_MAX / 16 / n_shards) {
      return DoNotFit(first.name, "is too large");
    }
    joined_size *= n_shards;
    joined.by_columns = axis == JoinAxis::kColumns;
    joined.parts.resize(static_cast<size_t>(n_shards));
  } else {
    joined.parts.resize(1);
  }
  return joined;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> UniteShards(std::vector<Shard> shards) {
  auto merged = std::make_unique<MergedSource>(std::move(shards));
  absl::flat_hash_map<std::string, std::string> seen;  // tensor -> shard
  for (size_t s = 0; s < merged->shards().size(); ++s) {
    const Shard& shard = merged->shards()[s];
    int index = 0;
    for (const SourceTensor& tensor : shard.source->tensors()) {
      const auto [it, is_new] = seen.emplace(tensor.name, shard.name);
      if (!is_new) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(tensor.name),
                                                       " is in two shards, ", Quote(it->second),
                                                       " and ", Quote(shard.name)));
      }
      merged->Add(tensor, {{{static_cast<int>(s), index++}}, false});
    }
  }
  return merged;
}

absl::StatusOr<std::unique_ptr<TensorSource>> JoinTensorParallel(std::vector<Shard> shards) {
  absl::StatusOr<int64_t> hidden_dim = HiddenDim(shards.front());
  if (!hidden_dim.ok()) return hidden_dim.status();
  std::vector<Index> indexes;
  for (const Shard& shard : shards) indexes.push_back(IndexOf(*shard.source));
  const auto n_shards = static_cast<int>(shards.size());
  auto merged = std::make_unique<MergedSource>(std::move(shards));
  const std::vector<Shard>& parts = merged->shards();
  for (const SourceTensor& first : parts[0].source->tensors()) {
    SourceTensor whole;
    absl::StatusOr<Joined> joined = PlanJoin(first, *hidden_dim, n_shards, &whole);
    if (!joined.ok()) return joined.status();
    for (int s = 0; s < n_shards; ++s) {
      const auto i = static_cast<size_t>(s);
      const auto found = indexes[i].find(first.name);
      if (found == indexes[i].end()) {
        return DoNotFit(first.name, absl::StrCat("is in ", Quote(parts[0].name), " and not in ",
                                                 Quote(parts[i].name)));
      }
      const SourceTensor& part = parts[i].source->tensors()[static_cast<size_t>(found->second)];
      if (part.shape != first.shape || part.dtype != first.dtype) {
        return DoNotFit(first.name,
                        absl::StrCat("is ", Info(part.dtype).name, " ", ShapeText(part), " in ",
                                     Quote(parts[i].name), " and ", Info(first.dtype).name, " ",
                                     ShapeText(first), " in ", Quote(parts[0].name)));
      }
      if (i < joined->parts.size()) joined->parts[i] = {s, found->second};
      indexes[i].erase(found);
    }
    merged->Add(std::move(whole), *std::move(joined));
  }
  for (size_t s = 0; s < indexes.size(); ++s) {
    if (indexes[s].empty()) continue;
    return DoNotFit(indexes[s].begin()->first, absl::StrCat("is in ", Quote(parts[s].name),
                                                            " and not in ", Quote(parts[0].name)));
  }
  return merged;
}

}  // namespace quire
