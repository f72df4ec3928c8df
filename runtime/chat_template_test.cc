// Templates that are cut or damaged. What good ones render is tested by
// tests/oracle/test_chat_templates.py.
#include "runtime/chat_template.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "format/test_caps.h"

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

std::string Repeat(int64_t n, absl::string_view statements) {
  return absl::StrCat("{% for i in range(", n, ") %}", statements, "{% endfor %}");
}

// Few steps, each on much: they end within the budgets of bytes made and looked through.
TEST(ChatTemplateTest, StepsThatEachCostMuchAreLimited) {
  const std::string text = "{% set ns = namespace(s='aaaaaaaaaaaaaaaa', l=[1, 'x']) %}" +
                           Repeat(16, "{% set ns.s = ns.s ~ ns.s %}");  // 1 MiB
  const std::pair<std::string, const char*> cases[] = {
      {Repeat(60, "{% set ns.l = [ns.l, ns.l] %}"), "256 MiB of values"},
      {Repeat(60, "{% set ns.l = {'a': ns.l, 'b': ns.l} %}"), "256 MiB of values"},
      {Repeat(60, "{% set ns.l = ns.l + ns.l %}"), "256 MiB of values"},
      {Repeat(60, "{% set ns.l = dict(a=ns.l, b=ns.l) %}"), "256 MiB of values"},
      {Repeat(60, "{% set ns.s = ns.s ~ ns.s %}"), "256 MiB of values"},
      {Repeat(500, "{% set ns.l = [[[ns.l]]] %}"), "nested deeper than 100"},
      {Repeat(90000, "{% set x = ns.s ~ '' %}"), "256 MiB of values"},
      {"{% set t = ns.s ~ 'b' %}{% set u = ns.s ~ 'c' %}" + Repeat(90000, "{% set x = t == u %}"),
       "512 MiB of values"},
      {Repeat(90000, "{% set x = ns.s|length %}"), "512 MiB of values"},
      {Repeat(90000, "{% set x = ns.s[0] %}"), "512 MiB of values"},
      {Repeat(90000, "{% set x = ns.s[:2] %}"), "512 MiB of values"},
      {Repeat(90000, "{% set x = ns.s.strip('a') %}"), "512 MiB of values"},
      {Repeat(90000, "{% set x = ns.s is eq('a') %}"), "512 MiB of values"},
      {Repeat(90000, "{% for c in range(90000) %}{% break %}{% endfor %}"), "million steps"},
      {Repeat(90000, "{% for c in ns.s[:90000] %}{% break %}{% endfor %}"), "million steps"},
      {Repeat(90, "{% set ns.s = ns.s ~ ns.s %}{% set x = ns.s[0] %}"), "of more than 4 MiB"},
      {"{% set x = (ns.s ~ ns.s).split('a') %}", "1000000 parts"},
      {"{% set x = (ns.s ~ ns.s).replace('a', ' b').split() %}", "1000000 parts"},
  };
  for (const auto& [statements, words] : cases) {
    const absl::Status status = Render(text + statements).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << statements << status;
    EXPECT_TRUE(absl::StrContains(status.message(), words)) << statements << status;
  }
  AllowThisTest(20, 400);
}

// Searches that a naive loop would do in quadratic time.
TEST(ChatTemplateTest, SearchesTakeLinearTime) {
  const std::string text = "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}" +
                           Repeat(16, "{% set ns.s = ns.s ~ ns.s %}") +
                           "{% set h = ns.s ~ ns.s ~ 'b' %}{% set n = ns.s ~ 'c' %}";
  EXPECT_EQ(*Render(text + "{{ n in h }}"), "False");
  EXPECT_EQ(*Render(text + "{{ h.replace(n, '')|length }}"), "2097153");
  EXPECT_EQ(*Render(text + "{{ h.split(n)|length }}"), "1");
  EXPECT_EQ(*Render(text + "{{ h.strip(n)|length }}"), "1");
}

TEST(ChatTemplateTest, ANamespaceThatIsSharedKeepsItsValues) {
  EXPECT_EQ(*Render("{% set ns = namespace(a=1) %}{% set kept = ns %}{% set ns.a = 2 %}"
                    "{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ kept.a }}"),
            "31");
  EXPECT_EQ(*Render("{% for i in [1, 2] %}{% for j in [3, 4] %}{{ loop.previtem }}"
                    "{{ loop.nextitem is defined }}{% endfor %}{{ loop.previtem }};{% endfor %}"),
            "True3False;True3False1;");
}

}  // namespace
}  // namespace quire
