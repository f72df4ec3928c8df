#include "runtime/text/prefix_index.h"

#include <algorithm>

namespace quire {

PrefixIndex::PrefixIndex(std::vector<std::pair<absl::string_view, int32_t>> entries)
    : entries_(std::move(entries)) {
  std::sort(entries_.begin(), entries_.end());
  size_t i = 0;
  for (int first = 0; first < 257; ++first) {
    while (i < entries_.size() && static_cast<uint8_t>(entries_[i].first[0]) < first) ++i;
    starts_[first] = static_cast<uint32_t>(i);
  }
}

void PrefixIndex::Matches(absl::string_view text,
                          absl::FunctionRef<void(size_t length, int32_t value)> visit) const {
  if (text.empty()) return;
  const uint8_t first = static_cast<uint8_t>(text[0]);
  auto begin = entries_.begin() + starts_[first], end = entries_.begin() + starts_[first + 1];
  // Entries in [begin, end) agree with `text` in their first `depth` bytes.
  for (size_t depth = 1; begin != end; ++depth) {
    for (; begin != end && begin->first.size() == depth; ++begin) visit(depth, begin->second);
    if (depth == text.size() || begin == end) return;
    const uint8_t byte = static_cast<uint8_t>(text[depth]);
    const auto at = [depth](const auto& entry) { return static_cast<uint8_t>(entry.first[depth]); };
    begin = std::partition_point(begin, end, [&](const auto& entry) { return at(entry) < byte; });
    end = std::partition_point(begin, end, [&](const auto& entry) { return at(entry) <= byte; });
  }
}

size_t PrefixIndex::Longest(absl::string_view text, int32_t* value) const {
  size_t longest = 0;
  Matches(text, [&](size_t length, int32_t v) {
    longest = length;
    *value = v;
  });
  return longest;
}

int32_t PrefixIndex::Exact(absl::string_view text) const {
  int32_t value = -1;
  return Longest(text, &value) == text.size() && !text.empty() ? value : -1;
}

}  // namespace quire
