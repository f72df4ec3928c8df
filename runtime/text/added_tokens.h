// Tokens that are recognised in the text itself, before anything else looks at it.
#ifndef QUIRE_RUNTIME_TEXT_ADDED_TOKENS_H_
#define QUIRE_RUNTIME_TEXT_ADDED_TOKENS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"
#include "runtime/text/prefix_index.h"

namespace quire {

// A stretch of text: plain, or one added token.
struct TextStretch {
  absl::string_view text;
  int32_t id;  // -1: plain
};

// A set of added tokens, each with the text to look for. Borrows the texts and messages. Immutable.
class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<std::pair<absl::string_view, const pb::AddedToken*>> tokens);

  // Cuts valid UTF-8 at the tokens: the leftmost first, of those the longest. Special ones stay
  // plain text unless `parse_special`. No stretch is empty.
  std::vector<TextStretch> Cut(absl::string_view text, bool parse_special) const;

 private:
  std::vector<const pb::AddedToken*> tokens_;
  PrefixIndex index_;  // value: index into tokens_
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_ADDED_TOKENS_H_
