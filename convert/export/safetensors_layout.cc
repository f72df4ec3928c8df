#include "convert/export/safetensors_layout.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

void SetHead(SafetensorsFile* file) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t offset = 0;
  for (OutputTensor& tensor : file->tensors) {
    header[tensor.name] = {{"dtype", tensor.type},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes()}}};
    tensor.offset = offset;
    offset += tensor.bytes();
  }
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  file->head.assign(reinterpret_cast<const char*>(&length), sizeof length);
  file->head += text;
  for (OutputTensor& tensor : file->tensors) tensor.offset += file->head.size();
  file->bytes = static_cast<int64_t>(file->head.size()) + offset;
}

}  // namespace

SafetensorsLayout LayOutSafetensors(std::vector<OutputTensor> tensors, int64_t max_file_bytes) {
  SafetensorsLayout layout;
  int64_t total = 0, in_file = 0;
  for (OutputTensor& tensor : tensors) {
    if (layout.files.empty() || in_file + tensor.bytes() > max_file_bytes) {
      layout.files.emplace_back();
      in_file = 0;
    }
    in_file += tensor.bytes();
    total += tensor.bytes();
    layout.files.back().tensors.push_back(std::move(tensor));
  }
  const size_t n = layout.files.size();
  Json names = Json::object();
  for (size_t i = 0; i < n; ++i) {
    SafetensorsFile& file = layout.files[i];
    file.name =
        n == 1 ? "model.safetensors" : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, n);
    SetHead(&file);
    for (const OutputTensor& tensor : file.tensors) names[tensor.name] = file.name;
  }
  if (n > 1) {
    const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(names)}};
    layout.index = index.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  return layout;
}

}  // namespace quire
