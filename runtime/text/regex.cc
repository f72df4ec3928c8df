#include "runtime/text/regex.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_format.h"
#include "runtime/text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace quire {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
// Backtracking steps. Those of one attempt at one place are PCRE2's to count; attempts that need
// more than the first limit are made again with a higher one, and pay from a budget of the whole
// text.
constexpr uint32_t kAttemptSteps = 1000;
constexpr uint64_t kBudgetSteps = 10'000'000;
constexpr uint64_t kBudgetStepsPerByte = 100;
constexpr uint32_t kHeapKiB = 64 << 10;

struct Deleter {
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
  auto impl = std::make_unique<Impl>();
  impl->pattern = std::string(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                 nullptr));
  if (impl->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "pattern \"%s\": at byte %d: %s", impl->pattern.substr(0, 200), offset, ErrorText(error)));
  }
  return Regex(std::move(impl));
}

absl::Status Regex::ForEachMatch(absl::string_view text,
                                 absl::FunctionRef<void(size_t begin, size_t end)> visit) const {
  // Checked once, here, and not at each attempt.
  if (ValidUtf8Prefix(text) != text.size())
    return absl::InvalidArgumentError("text to match is not UTF-8");
  const std::unique_ptr<pcre2_match_data, Deleter> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, Deleter> context(pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr)
    return absl::ResourceExhaustedError("no memory to match a pattern");
  pcre2_set_heap_limit(context.get(), kHeapKiB);
  uint64_t budget = kBudgetSteps + kBudgetStepsPerByte * text.size();

  for (size_t pos = 0; pos < text.size();) {
    int result;
    uint32_t limit = kAttemptSteps;
    for (;;) {
      pcre2_set_match_limit(context.get(), limit);
      result =
          pcre2_match(impl_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                      pos, PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, data.get(), context.get());
      if (result != PCRE2_ERROR_MATCHLIMIT || limit > budget) break;
      budget -= limit;
      limit = static_cast<uint32_t>(
          std::min<uint64_t>({uint64_t{limit} * 4, std::max<uint64_t>(budget, 1), UINT32_MAX}));
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      pos += NextChar(text.substr(pos)).length;
      continue;
    }
    if (result < 0) {
      const std::string what =
          absl::StrFormat("pattern \"%s\" at byte %d of %d: %s", impl_->pattern.substr(0, 200), pos,
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
