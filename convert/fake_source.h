// A checkpoint in memory, for tests.
#ifndef QUIRE_CONVERT_FAKE_SOURCE_H_
#define QUIRE_CONVERT_FAKE_SOURCE_H_

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/tensor_source.h"

namespace quire {

class FakeSource : public TensorSource {
 public:
  explicit FakeSource(std::string container = "torch-zip") : container_(std::move(container)) {}

  // Without bytes: every tensor differs from every other in its first byte's neighbourhood.
  void Add(std::string name, std::vector<int64_t> shape, DType dtype = DType::kF32,
           std::vector<uint8_t> bytes = {}, int alias = -1) {
    tensors_.push_back({std::move(name), std::move(shape), dtype});
    if (bytes.empty()) {
      bytes.resize(static_cast<size_t>(tensors_.back().bytes()));
      for (size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<uint8_t>(i + tensors_.size());
    }
    bytes_.push_back(std::move(bytes));
    aliases_.push_back(alias);
  }
  void AddFloats(std::string name, std::vector<int64_t> shape, const std::vector<float>& values) {
    std::vector<uint8_t> bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    Add(std::move(name), std::move(shape), DType::kF32, std::move(bytes));
  }
  void AddMetadata(std::string key, std::string json) {
    metadata_.emplace_back(std::move(key), std::move(json));
  }
  void Remove(absl::string_view name) {
    const size_t i = static_cast<size_t>(IndexOf(name));
    tensors_.erase(tensors_.begin() + static_cast<int64_t>(i));
    bytes_.erase(bytes_.begin() + static_cast<int64_t>(i));
    aliases_.erase(aliases_.begin() + static_cast<int64_t>(i));
  }
  int IndexOf(absl::string_view name) const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].name == name) return static_cast<int>(i);
    }
    return -1;
  }
  SourceTensor& tensor(absl::string_view name) {
    return tensors_[static_cast<size_t>(IndexOf(name))];
  }
  void SetAlias(absl::string_view name, int id) {
    aliases_[static_cast<size_t>(IndexOf(name))] = id;
  }

  absl::string_view container() const override { return container_; }
  absl::Span<const SourceTensor> tensors() const override { return tensors_; }
  absl::Span<const std::pair<std::string, std::string>> metadata() const override {
    return metadata_;
  }
  int Alias(int index) const override { return aliases_[static_cast<size_t>(index)]; }
  std::vector<std::pair<std::string, int64_t>> files() const override {
    return {{"fake", int64_t{1}}};
  }
  absl::Status Read(int index, int64_t begin, int64_t count,
                    absl::Span<uint8_t> out) const override {
    const DTypeInfo& info = Info(tensors_[static_cast<size_t>(index)].dtype);
    const std::vector<uint8_t>& bytes = bytes_[static_cast<size_t>(index)];
    const int64_t from = begin / info.block_elements * info.block_bytes;
    const int64_t n = count / info.block_elements * info.block_bytes;
    if (static_cast<size_t>(n) != out.size() || from + n > static_cast<int64_t>(bytes.size())) {
      return absl::DataLossError(absl::StrCat("read of ", n, " bytes at ", from));
    }
    if (n > 0) std::memcpy(out.data(), bytes.data() + from, out.size());
    return absl::OkStatus();
  }

 private:
  std::string container_;
  std::vector<SourceTensor> tensors_;
  std::vector<std::vector<uint8_t>> bytes_;
  std::vector<int> aliases_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_FAKE_SOURCE_H_
