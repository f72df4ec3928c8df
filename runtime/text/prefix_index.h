// Finds which of many strings stand at a place in a text.
#ifndef QUIRE_RUNTIME_TEXT_PREFIX_INDEX_H_
#define QUIRE_RUNTIME_TEXT_PREFIX_INDEX_H_

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace quire {

// A sorted list, narrowed byte by byte: O(length of the match x log of the list) a look-up.
// Immutable.
class PrefixIndex {
 public:
  PrefixIndex() { starts_.fill(0); }
  // (string, value). The strings are not empty, and borrowed.
  explicit PrefixIndex(std::vector<std::pair<absl::string_view, int32_t>> entries);

  bool empty() const { return entries_.empty(); }
  // Every entry that `text` begins with, the shortest first.
  void Matches(absl::string_view text,
               absl::FunctionRef<void(size_t length, int32_t value)> visit) const;
  // The longest entry that `text` begins with: its length, and its value in *value; 0 where there
  // is none.
  size_t Longest(absl::string_view text, int32_t* value) const;
  // The value of the entry that equals `text`, or -1.
  int32_t Exact(absl::string_view text) const;

 private:
  std::vector<std::pair<absl::string_view, int32_t>> entries_;
  std::array<uint32_t, 257> starts_;  // where the entries with each first byte begin
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_PREFIX_INDEX_H_
