#include "tests/fuzz/model_file_builder.h"

#include <xxhash.h>

#include <algorithm>

#include "format/header.h"
#include "format/manifest.pb.h"
#include "format/manifest_check.h"

namespace quire {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;

}  // namespace

std::string BuildModelFile(const ModelFileInput& input, bool* whole) {
  std::string manifest_bytes = input.manifest;
  int64_t file_bytes = RoundUp(
      kHeaderBytes + static_cast<int64_t>(manifest_bytes.size() + input.content.size()), 16384);
  pb::Manifest manifest;
  std::string content = input.content.empty() ? std::string(1, '\0') : input.content;
  std::string file;
  *whole = false;
  if ((input.flags & ModelFileInput::kPlace) != 0 && manifest.ParseFromString(manifest_bytes) &&
      CheckManifest(manifest).ok()) {
    manifest.clear_tokenizer();
    if (!input.tokenizer.empty()) manifest.mutable_tokenizer()->set_xxh3(0);
    for (pb::TensorEntry& tensor : *manifest.mutable_tensors()) {
      tensor.set_offset(1);
      tensor.set_bytes(1);
      tensor.set_xxh3(0);
    }
    double bytes = 0;
    for (const pb::TensorEntry& tensor : manifest.tensors()) {
      bytes += static_cast<double>(GeometryOf(tensor).bytes()) + 16384;
    }
    if (bytes < kMaxFileBytes) {
      const auto tokenizer_bytes = static_cast<int64_t>(input.tokenizer.size());
      if (tokenizer_bytes > 0) {
        manifest.mutable_tokenizer()->set_offset(1);
        manifest.mutable_tokenizer()->set_bytes(1);
      }
      file_bytes =
          PlanOffsets(&manifest, static_cast<int64_t>(manifest.ByteSizeLong()), tokenizer_bytes);
      file.resize(static_cast<size_t>(file_bytes));
      for (pb::TensorEntry& tensor : *manifest.mutable_tensors()) {
        for (size_t i = 0; i < tensor.bytes(); i += content.size()) {
          const size_t n = std::min<size_t>(content.size(), tensor.bytes() - i);
          file.replace(tensor.offset() + i, n, content, 0, n);
        }
        if ((input.flags & ModelFileInput::kSum) != 0)
          tensor.set_xxh3(XXH3_64bits(&file[tensor.offset()], tensor.bytes()));
      }
      if (tokenizer_bytes > 0) {
        file.replace(manifest.tokenizer().offset(), input.tokenizer.size(), input.tokenizer);
        manifest.mutable_tokenizer()->set_xxh3(
            XXH3_64bits(input.tokenizer.data(), input.tokenizer.size()));
      }
      manifest_bytes = manifest.SerializeAsString();
      *whole = (input.flags & ModelFileInput::kCut) == 0;
    }
  }
  file.resize(static_cast<size_t>(file_bytes));
  Header header;
  header.manifest_bytes = static_cast<int64_t>(manifest_bytes.size());
  header.manifest_xxh3 = XXH3_64bits(manifest_bytes.data(), manifest_bytes.size());
  header.file_bytes = file_bytes;
  header.Serialize(reinterpret_cast<uint8_t*>(file.data()));
  file.replace(kHeaderBytes, manifest_bytes.size(), manifest_bytes);
  if ((input.flags & ModelFileInput::kCut) != 0) file.resize(file.size() / 2);
  return file;
}

}  // namespace quire
