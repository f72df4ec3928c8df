// Patterns that come from untrusted files, matched in bounded time.
#ifndef QUIRE_RUNTIME_TEXT_REGEX_H_
#define QUIRE_RUNTIME_TEXT_REGEX_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

// What the patterns may spend on one text: steps of backtracking, in all of their matches.
struct MatchBudget {
  explicit MatchBudget(size_t text_bytes)
      : steps(10'000'000 + 100 * static_cast<int64_t>(text_bytes)) {}
  int64_t steps;
};

// Immutable, thread-safe, move-only.
class Regex {
 public:
  // PCRE2 syntax, UTF and UCP modes. InvalidArgument: does not compile, or is longer than 16 KiB.
  static absl::StatusOr<Regex> Create(absl::string_view pattern);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Calls visit(begin, end) for each match, from left to right, none overlapping; a match may be
  // empty. An attempt at one place that takes at most 200 steps is free, longer ones spend from the
  // budget. ResourceExhausted where that is used up, or where remembering how to go back takes more
  // than 64 MiB. InvalidArgument: `text` is not UTF-8.
  absl::Status ForEachMatch(absl::string_view text, MatchBudget* budget,
                            absl::FunctionRef<void(size_t begin, size_t end)> visit) const;

 private:
  struct Impl;
  explicit Regex(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_REGEX_H_
