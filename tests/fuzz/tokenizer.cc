// Tokenizers and chat templates. The first byte says what the rest is: a tokenizer section, one of
// the tokenizer files, a chat template, or the text of a prompt.
#include "runtime/tokenizer.h"

#include <string>
#include <utility>
#include <vector>

#include "convert/tokenizer_files.h"
#include "format/tokenizer.pb.h"
#include "runtime/chat_template.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {
namespace {

void CheckMessage(const absl::Status& status) {
  const absl::string_view message = status.message();
  FuzzCheck(!message.empty() && message.size() < 4000, "a refusal says why, in a line");
}

void CheckUse(const Tokenizer& tokenizer, absl::string_view text) {
  for (const bool special : {false, true}) {
    const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, {special, special});
    if (!ids.ok()) {
      CheckMessage(ids.status());
      continue;
    }
    StreamDecoder decoder(&tokenizer);
    std::string streamed;
    for (const int32_t id : *ids) {
      FuzzCheck(id >= 0 && id < tokenizer.size(), "ids are in range");
      streamed += decoder.Add(id);
    }
    streamed += decoder.Finish();
    FuzzCheck(streamed == tokenizer.Decode(*ids), "streamed text is the decoded text");
  }
}

void CheckCreate(absl::StatusOr<pb::Tokenizer> proto, absl::string_view text) {
  if (!proto.ok()) return CheckMessage(proto.status());
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(*std::move(proto));
  if (!tokenizer.ok()) return CheckMessage(tokenizer.status());
  CheckUse(*tokenizer, text);
}

void CheckTemplate(absl::string_view source) {
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::Create(source);
  if (!chat.ok()) return CheckMessage(chat.status());
  const absl::StatusOr<std::string> text =
      chat->Render({{"system", "be brief"}, {"user", "a"}, {"assistant", "b"}, {"user", " c "}},
                   {"<s>", "</s>", true});
  if (!text.ok()) CheckMessage(text.status());
}

// Every byte is a piece, "aa" and " a" are merged.
const Tokenizer& PlainTokenizer() {
  static const Tokenizer* const tokenizer = [] {
    pb::Tokenizer proto;
    proto.set_model(pb::Tokenizer::BPE_BY_SCORE);
    proto.set_byte_level(true);
    for (int b = 0; b < 258; ++b) {
      const std::string text = b < 256    ? std::string(1, static_cast<char>(b))
                               : b == 256 ? "aa"
                                          : " a";
      proto.mutable_piece_text()->append(text);
      proto.add_piece_length(static_cast<uint32_t>(text.size()));
      proto.mutable_piece_kind()->push_back(pb::NORMAL);
      proto.add_piece_score(static_cast<float>(-b));
    }
    proto.add_normalizer()->set_kind(pb::TextStep::NFC);
    pb::TextStep* split = proto.add_pre_tokenizer();
    split->set_kind(pb::TextStep::SPLIT);
    split->set_pattern(R"(\p{L}+|\p{N}|\s*[\r\n]+|\s+(?!\S)|\s+)");
    return new Tokenizer(*Tokenizer::Create(std::move(proto)));
  }();
  return *tokenizer;
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const absl::string_view text = "aaab \xC3\xA9 12\n  <s> <0x41>\xF0\x9F\x98\x80 \xFF the end";
  switch (data[0]) {
    case 'p': {
      pb::Tokenizer proto;
      if (proto.ParseFromArray(rest.data(), static_cast<int>(rest.size())))
        CheckCreate(std::move(proto), text);
      break;
    }
    case 'h':
      CheckCreate(ImportHuggingFaceJson(rest), text);
      break;
    case 's':
      CheckCreate(ImportSentencepieceModel(rest), text);
      break;
    case 't':
      CheckCreate(ImportTiktoken(rest), text);
      break;
    case 'c':
      CheckTemplate(rest);
      break;
    case 'x':
      CheckUse(PlainTokenizer(), rest);
      break;
    default:
      break;
  }
  return 0;
}
