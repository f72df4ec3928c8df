// Templates that are cut or damaged. What good ones render is tested by
// tests/oracle/test_chat_templates.py.
#include "runtime/chat_template.h"

#include <gtest/gtest.h>

#include <string>

namespace quire {
namespace {

absl::StatusOr<std::string> Render(const std::string& source) {
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::Create(source);
  if (!chat.ok()) return chat.status();
  return chat->Render({{"user", "b"}}, {"<s>", "</s>", true});
}

TEST(ChatTemplateTest, EveryCutIsRefusedOrRendered) {
  const std::string whole =
      R"({# note #}{% set a = "\x41\u00e9\U0001F600\'" %}{%- if a and 1.5 -%}{{ a ~ {'b': [2]}.b[0] }}{% endif +%})";
  ASSERT_TRUE(Render(whole).ok()) << Render(whole).status();
  for (size_t n = 1; n < whole.size(); ++n) {
    const absl::StatusOr<std::string> text = Render(whole.substr(0, n));
    if (!text.ok()) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << n;
    }
  }
}

// Found by fuzzing: three digits and the end were read as four.
TEST(ChatTemplateTest, AnEscapeIsItsDigitsAndNothingElse) {
  for (const char* cut :
       {R"({{ "\u00e)", R"({{ "\x4)", R"({{ "\U0001F60)", R"({{ "\u)", R"({{ "\)"})
    EXPECT_EQ(Render(cut).status().code(), absl::StatusCode::kInvalidArgument) << cut;
  EXPECT_EQ(*Render(R"({{ "\x41\u00e9" }})"), "A\xC3\xA9");
  for (const char* kept : {R"(\x+4)", R"(\x 4)", R"(\u0x41)", R"(\u00g1)", R"(\uD800)"})
    EXPECT_EQ(*Render(std::string("{{ '") + kept + "' }}"), kept);
}

}  // namespace
}  // namespace quire
