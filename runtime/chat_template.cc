#include "runtime/chat_template.h"

#include <utility>

#include "nlohmann/json.hpp"
#include "runtime/jinja/parser.h"
#include "runtime/jinja/render.h"
#include "runtime/text/utf8.h"

namespace quire {

struct ChatTemplate::Impl {
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<ChatTemplate> ChatTemplate::Create(absl::string_view source) {
  if (source.empty()) return absl::NotFoundError("the model has no chat template");
  absl::StatusOr<jinja::Block> block = jinja::Parse(ReplaceInvalidUtf8(source));
  if (!block.ok()) return block.status();
  auto impl = std::make_unique<Impl>();
  impl->block = *std::move(block);
  return ChatTemplate(std::move(impl));
}

absl::StatusOr<std::string> ChatTemplate::Render(absl::Span<const ChatMessage> messages,
                                                 const Options& options) const {
  nlohmann::json list = nlohmann::json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", ReplaceInvalidUtf8(message.role)},
                    {"content", ReplaceInvalidUtf8(message.content)}});
  }
  // What transformers' apply_chat_template gives a template.
  return jinja::Render(impl_->block, {{"messages", std::move(list)},
                                      {"tools", nullptr},
                                      {"documents", nullptr},
                                      {"add_generation_prompt", options.add_generation_prompt},
                                      {"bos_token", options.bos_token},
                                      {"eos_token", options.eos_token}});
}

}  // namespace quire
