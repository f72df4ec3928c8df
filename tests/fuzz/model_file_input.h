// The input of the model_file target: the parts of a .quire file that are not checksums, so that a
// mutant is a file whose checksums are right.
#ifndef QUIRE_TESTS_FUZZ_MODEL_FILE_INPUT_H_
#define QUIRE_TESTS_FUZZ_MODEL_FILE_INPUT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace quire {

struct ModelFileInput {
  // What of the manifest is made right before it is written: offsets and sizes, and checksums of
  // the content. The header is always right but for its size, where kCut says so.
  enum Flags : uint8_t { kPlace = 1, kSum = 2, kCut = 4 };
  uint8_t flags = 0;
  std::string manifest, tokenizer;  // serialized messages
  std::string content;              // of the tensors, repeated

  // flags, bytes of the manifest and of the tokenizer (2 bytes each), and all of them.
  static ModelFileInput Parse(absl::string_view in) {
    ModelFileInput out;
    if (in.size() < 5) return out;
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(in[i]); };
    const size_t manifest = byte(1) | byte(2) << 8, tokenizer = byte(3) | byte(4) << 8;
    out.flags = byte(0);
    in.remove_prefix(5);
    const auto take = [&](size_t n) {
      const std::string part(in.substr(0, n));
      in.remove_prefix(part.size());
      return part;
    };
    out.manifest = take(manifest);
    out.tokenizer = take(tokenizer);
    out.content = take(in.size());
    return out;
  }

  std::string Serialize() const {
    std::string out(1, static_cast<char>(flags));
    for (const std::string* part : {&manifest, &tokenizer}) {
      out.push_back(static_cast<char>(part->size()));
      out.push_back(static_cast<char>(part->size() >> 8));
    }
    return out + manifest + tokenizer + content;
  }
};

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_MODEL_FILE_INPUT_H_
