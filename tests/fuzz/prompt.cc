// Prompts and chat templates. The first byte says what the rest is: "0" to "3" a prompt for one of
// the sample tokenizers, "c" a chat template and, behind a NUL, what the user says.
#include <string>
#include <utility>
#include <vector>

#include "runtime/chat_template.h"
#include "tests/fuzz/check_tokenizer.h"
#include "tests/fuzz/sample_tokenizers.h"

namespace quire {
namespace {

const std::vector<Tokenizer>& Samples() {
  static const std::vector<Tokenizer>* const samples = [] {
    auto* made = new std::vector<Tokenizer>;
    for (pb::Tokenizer& proto : SampleTokenizers()) {
      absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(std::move(proto));
      FuzzCheck(tokenizer.ok(), "a sample is a tokenizer");
      made->push_back(*std::move(tokenizer));
    }
    return made;
  }();
  return *samples;
}

bool IsAscii(absl::string_view text) {
  for (const char c : text) {
    if (static_cast<uint8_t>(c) >= 0x80) return false;
  }
  return true;
}

void CheckPrompt(size_t sample, absl::string_view text) {
  const Tokenizer& tokenizer = Samples()[sample];
  CheckTokenizer(tokenizer, text);
  if (sample > 1 || !IsAscii(text)) return;
  const auto ids = tokenizer.Encode(text, {/*add_special=*/false, /*parse_special=*/false});
  FuzzCheck(ids.ok() && tokenizer.Decode(*ids) == text, "a text comes back as it was");
}

void CheckTemplate(absl::string_view input) {
  const size_t nul = std::min(input.find('\0'), input.size());
  const std::string said(input.substr(std::min(nul + 1, input.size())));
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::Create(input.substr(0, nul));
  if (!chat.ok()) return CheckRefusal(chat.status());
  const absl::StatusOr<std::string> text =
      chat->Render({{"system", "be brief"}, {"user", said}, {"assistant", "b"}, {"user", " c "}},
                   {"<s>", "</s>", true});
  if (!text.ok()) return CheckRefusal(text.status());
  CheckPrompt(1, absl::string_view(*text).substr(0, 1 << 16));
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] >= '0' && data[0] <= '3') CheckPrompt(data[0] - '0', rest);
  if (data[0] == 'c') CheckTemplate(rest);
  return 0;
}
