// Folders: a file changed in the way of its kind, left out, or under another name.
#include <algorithm>

#include "absl/strings/match.h"
#include "convert/sentencepiece_model.pb.h"
#include "tests/fuzz/folder_input.h"
#include "tests/fuzz/protobuf_mutator.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace quire;
  Random random(seed);
  std::vector<FolderFile> files =
      ParseFolder(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (files.empty()) files.push_back({0, "{}"});
  const size_t at = Below(files.size(), random);
  std::string& content = files[at].content;
  const std::string name = files[at].Name();
  switch (random() % 16) {
    case 0:
      files.erase(files.begin() + static_cast<ptrdiff_t>(at));
      break;
    case 1:
      files[at].name = static_cast<uint8_t>(random());
      break;
    case 2:
      files.push_back({static_cast<uint8_t>(random()), content});
      break;
    case 3:
      content = MutateBytes(content, content.size() + 16);
      break;
    default:
      if (absl::EndsWith(name, ".json")) {
        content = MutateJson(content, content.size() + 64, random);
      } else if (absl::EndsWith(name, ".safetensors")) {
        content = MutateSafetensors(content, content.size() + 64, random);
      } else if (absl::EndsWith(name, ".model")) {
        content = MutateSerialized<sentencepiece::ModelProto>(content, random);
      } else if (absl::StartsWith(content, "PK")) {
        content = MutateZip(content, content.size() + 64, random);
      } else {
        content = MutatePickle(content, content.size() + 64, random);
      }
  }
  return StoreMutant(SerializeFolder(files), data, max_size);
}
