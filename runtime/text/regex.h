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

// Immutable, thread-safe, move-only.
class Regex {
 public:
  // PCRE2 syntax, UTF and UCP modes. InvalidArgument: does not compile, or is longer than 16 KiB.
  static absl::StatusOr<Regex> Create(absl::string_view pattern);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Calls visit(begin, end) for each match, from left to right, none overlapping; a match may be
  // empty. ResourceExhausted where the pattern backtracks more than 1000 times a character and 10
  // million times in all beside, or needs more than 64 MiB to remember how. InvalidArgument: `text`
  // is not UTF-8.
  absl::Status ForEachMatch(absl::string_view text,
                            absl::FunctionRef<void(size_t begin, size_t end)> visit) const;

 private:
  struct Impl;
  explicit Regex(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_REGEX_H_
