#include "convert/export/gguf_builder.h"

namespace quire {
namespace {

template <typename T>
void Append(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void AppendText(absl::string_view text, std::string* out) {
  Append<uint64_t>(text.size(), out);
  out->append(text.data(), text.size());
}

}  // namespace

void GgufBuilder::AddKey(absl::string_view key, GgufType type) {
  ++n_keys_;
  AppendText(key, &keys_);
  Append(type, &keys_);
}

void GgufBuilder::AddArray(absl::string_view key, GgufType element, size_t count) {
  AddKey(key, GgufType::kArray);
  Append(element, &keys_);
  Append<uint64_t>(count, &keys_);
}

void GgufBuilder::AddU32(absl::string_view key, uint32_t value) {
  AddKey(key, GgufType::kU32);
  Append(value, &keys_);
}

void GgufBuilder::AddF32(absl::string_view key, float value) {
  AddKey(key, GgufType::kF32);
  Append(value, &keys_);
}

void GgufBuilder::AddBool(absl::string_view key, bool value) {
  AddKey(key, GgufType::kBool);
  Append<uint8_t>(value, &keys_);
}

void GgufBuilder::AddString(absl::string_view key, absl::string_view value) {
  AddKey(key, GgufType::kString);
  AppendText(value, &keys_);
}

void GgufBuilder::AddStrings(absl::string_view key, const std::vector<std::string>& values) {
  AddArray(key, GgufType::kString, values.size());
  for (const std::string& value : values) AppendText(value, &keys_);
}

void GgufBuilder::AddFloats(absl::string_view key, const std::vector<float>& values) {
  AddArray(key, GgufType::kF32, values.size());
  for (const float value : values) Append(value, &keys_);
}

void GgufBuilder::AddInts(absl::string_view key, const std::vector<int32_t>& values) {
  AddArray(key, GgufType::kI32, values.size());
  for (const int32_t value : values) Append(value, &keys_);
}

void GgufBuilder::AddTensor(absl::string_view name, uint32_t type,
                            const std::vector<int64_t>& shape, int64_t offset) {
  ++n_tensors_;
  AppendText(name, &tensors_);
  Append<uint32_t>(static_cast<uint32_t>(shape.size()), &tensors_);
  for (auto d = shape.rbegin(); d != shape.rend(); ++d) Append<uint64_t>(*d, &tensors_);
  Append(type, &tensors_);
  Append<uint64_t>(offset, &tensors_);
}

std::string GgufBuilder::Build() const {
  std::string out = "GGUF";
  Append<uint32_t>(3, &out);
  Append(n_tensors_, &out);
  Append(n_keys_, &out);
  out += keys_;
  out += tensors_;
  out.resize((out.size() + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment, '\0');
  return out;
}

}  // namespace quire
