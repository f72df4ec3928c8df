// Conversations as the model was trained to see them, by the checkpoint's own chat template.
#ifndef QUIRE_RUNTIME_CHAT_TEMPLATE_H_
#define QUIRE_RUNTIME_CHAT_TEMPLATE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// A parsed chat template. Immutable; move-only.
class ChatTemplate {
 public:
  // `source` is the Jinja text of the checkpoint (Tokenizer::chat_template), untrusted.
  // InvalidArgument: malformed. Unimplemented: it uses what is not supported (the message says
  // what). NotFound: empty.
  static absl::StatusOr<ChatTemplate> Create(absl::string_view source);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  struct Options {
    std::string bos_token, eos_token;   // their texts
    bool add_generation_prompt = true;  // ends with the beginning of an assistant's turn
  };
  // The text to encode with add_special = false and parse_special = true. InvalidArgument where the
  // template itself refuses the conversation (roles that do not alternate, ...); Unimplemented as
  // above; ResourceExhausted over a limit.
  absl::StatusOr<std::string> Render(absl::Span<const ChatMessage> messages,
                                     const Options& options) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_CHAT_TEMPLATE_H_
