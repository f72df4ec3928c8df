// The part of a GGUF file that stands before the weights, version 3: metadata and the list of
// tensors. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#ifndef QUIRE_CONVERT_EXPORT_GGUF_BUILDER_H_
#define QUIRE_CONVERT_EXPORT_GGUF_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "convert/gguf_header.h"

namespace quire {

inline constexpr int64_t kGgufAlignment = 32;  // the default of files that do not say

class GgufBuilder {
 public:
  void AddU32(absl::string_view key, uint32_t value);
  void AddF32(absl::string_view key, float value);
  void AddBool(absl::string_view key, bool value);
  void AddString(absl::string_view key, absl::string_view value);
  void AddStrings(absl::string_view key, const std::vector<std::string>& values);
  void AddFloats(absl::string_view key, const std::vector<float>& values);
  void AddInts(absl::string_view key, const std::vector<int32_t>& values);

  // `type` is ggml's number; `shape` is slowest first; `offset` counts from the first tensor's.
  void AddTensor(absl::string_view name, uint32_t type, const std::vector<int64_t>& shape,
                 int64_t offset);

  // All of it, padded to where the first tensor stands.
  std::string Build() const;

 private:
  void AddKey(absl::string_view key, GgufType type);
  void AddArray(absl::string_view key, GgufType element, size_t count);

  uint64_t n_keys_ = 0, n_tensors_ = 0;
  std::string keys_, tensors_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_GGUF_BUILDER_H_
