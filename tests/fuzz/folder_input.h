// The input of the folder target: files, one behind the other.
#ifndef QUIRE_TESTS_FUZZ_FOLDER_INPUT_H_
#define QUIRE_TESTS_FUZZ_FOLDER_INPUT_H_

#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace quire {

inline constexpr const char* kFileNames[] = {"config.json",
                                             "params.json",
                                             "quantize_config.json",
                                             "model.safetensors",
                                             "model.safetensors.index.json",
                                             "a.safetensors",
                                             "b.safetensors",
                                             "pytorch_model.bin",
                                             "pytorch_model.bin.index.json",
                                             "a.bin",
                                             "b.bin",
                                             "consolidated.00.pth",
                                             "consolidated.01.pth",
                                             "tokenizer.json",
                                             "tokenizer.model",
                                             "tokenizer_config.json",
                                             "special_tokens_map.json",
                                             "generation_config.json",
                                             "chat_template.jinja"};

struct FolderFile {
  uint8_t name = 0;  // index in kFileNames, modulo their number
  std::string content;

  std::string Name() const { return kFileNames[name % std::size(kFileNames)]; }
};

// Of each file: its name, the bytes of its content (2 bytes), and the content.
inline std::vector<FolderFile> ParseFolder(absl::string_view in) {
  std::vector<FolderFile> files;
  while (in.size() > 3 && files.size() < 16) {
    const size_t bytes = static_cast<uint8_t>(in[1]) | static_cast<uint8_t>(in[2]) << 8;
    files.push_back({static_cast<uint8_t>(in[0]), std::string(in.substr(3, bytes))});
    in.remove_prefix(3 + files.back().content.size());
  }
  return files;
}

inline std::string SerializeFolder(const std::vector<FolderFile>& files) {
  std::string out;
  for (const FolderFile& file : files) {
    const std::string content = file.content.substr(0, 0xffff);
    out.push_back(static_cast<char>(file.name));
    out.push_back(static_cast<char>(content.size()));
    out.push_back(static_cast<char>(content.size() >> 8));
    out += content;
  }
  return out;
}

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_FOLDER_INPUT_H_
