// Tokenizers. The first byte says what the rest is: a tokenizer section or one of the tokenizer
// files.
#include "runtime/tokenizer.h"

#include <utility>

#include "convert/tokenizer_files.h"
#include "format/tokenizer.pb.h"
#include "tests/fuzz/check_tokenizer.h"

namespace quire {
namespace {

void CheckCreate(absl::StatusOr<pb::Tokenizer> proto) {
  if (!proto.ok()) return CheckRefusal(proto.status());
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(*std::move(proto));
  if (!tokenizer.ok()) return CheckRefusal(tokenizer.status());
  CheckTokenizer(*tokenizer, "aaab \xC3\xA9 12\n  <s> <0x41>\xF0\x9F\x98\x80 \xFF the end <|end|>");
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'p': {
      pb::Tokenizer proto;
      if (proto.ParseFromArray(rest.data(), static_cast<int>(rest.size())))
        CheckCreate(std::move(proto));
      break;
    }
    case 'h':
      CheckCreate(ImportHuggingFaceJson(rest));
      break;
    case 's':
      CheckCreate(ImportSentencepieceModel(rest));
      break;
    case 't':
      CheckCreate(ImportTiktoken(rest));
      break;
    default:
      break;
  }
  return 0;
}
