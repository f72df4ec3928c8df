#include "runtime/text/regex.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "runtime/text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace quire {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
// PCRE2 counts the steps of one attempt at one place. One that needs more than this is made again
// with a higher limit.
constexpr int64_t kFreeSteps = 200;
constexpr uint32_t kHeapKiB = 64 << 10;

// Memory that is refused is no fault of the pattern: it ends the process as any other (main.cc).
void* Allocate(PCRE2_SIZE bytes, void*) { return ::operator new(bytes); }
void Free(void* data, void*) { ::operator delete(data); }
pcre2_general_context* Memory() {
  static pcre2_general_context* const memory =
      pcre2_general_context_create(Allocate, Free, nullptr);
  return memory;
}

struct Deleter {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};

std::string ErrorText(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof text) < 0)
    return absl::StrFormat("error %d", code);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Impl {
  std::string pattern;
  std::unique_ptr<pcre2_code, Deleter> code;
};

Regex::Regex(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Create(absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("pattern of %d bytes, the limit is %d", pattern.size(), kMaxPatternBytes));
  }
  const std::unique_ptr<pcre2_compile_context, Deleter> context(
      pcre2_compile_context_create(Memory()));
  auto impl = std::make_unique<Impl>();
  impl->pattern = std::string(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                 context.get()));
  if (impl->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrFormat("pattern \"%s\": at byte %d: %s",
                        absl::CHexEscape(impl->pattern.substr(0, 200)), offset, ErrorText(error)));
  }
  return Regex(std::move(impl));
}

absl::Status Regex::ForEachMatch(absl::string_view text, MatchBudget* budget,
                                 absl::FunctionRef<void(size_t begin, size_t end)> visit) const {
  // Checked once, here, and not at each attempt.
  if (ValidUtf8Prefix(text) != text.size())
    return absl::InvalidArgumentError("text to match is not UTF-8");
  const std::unique_ptr<pcre2_match_data, Deleter> data(pcre2_match_data_create(1, Memory()));
  const std::unique_ptr<pcre2_match_context, Deleter> context(pcre2_match_context_create(Memory()));
  pcre2_set_heap_limit(context.get(), kHeapKiB);

  for (size_t pos = 0; pos < text.size();) {
    int result;
    for (int64_t limit = kFreeSteps;; limit *= 4) {
      pcre2_set_match_limit(context.get(),
                            static_cast<uint32_t>(std::min<int64_t>(limit, UINT32_MAX)));
      result =
          pcre2_match(impl_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                      pos, PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, data.get(), context.get());
      if (result != PCRE2_ERROR_MATCHLIMIT) break;
      budget->steps -= limit * 4;  // what the next attempt may take
      if (budget->steps < 0) break;
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      pos += NextChar(text.substr(pos)).length;
      continue;
    }
    if (result < 0) {
      const std::string what = absl::StrFormat("pattern \"%s\" at byte %d of %d: %s",
                                               absl::CHexEscape(impl_->pattern.substr(0, 200)), pos,
                                               text.size(), ErrorText(result));
      return absl::ResourceExhaustedError(what);
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    // \K can set the beginning elsewhere; what matters is where the match stands.
    const size_t end = std::max<size_t>(bounds[1], pos);
    visit(pos, end);
    pos = end > pos ? end : pos + NextChar(text.substr(pos)).length;
  }
  return absl::OkStatus();
}

}  // namespace quire
