#include "format/kernel_text.h"

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "format/file.h"

namespace quire {

void ParseKernelFields(absl::string_view text, absl::Span<const KernelField> fields) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const size_t end = line.find_first_of(": \t");
    if (end == absl::string_view::npos) continue;
    for (const KernelField& field : fields) {
      if (line.substr(0, end) != field.name) continue;
      absl::string_view value = absl::StripAsciiWhitespace(line.substr(end + 1));
      const int64_t unit = absl::ConsumeSuffix(&value, " kB") ? 1024 : 1;
      int64_t number;
      if (absl::SimpleAtoi(value, &number) && number >= 0 &&
          number <= std::numeric_limits<int64_t>::max() / unit) {
        *field.value = number * unit;
      }
    }
  }
}

absl::StatusOr<std::string> ReadKernelText(const std::string& path) {
  constexpr int64_t kMaxBytes = 64 << 20;
  return ReadStream(path, kMaxBytes);
}

}  // namespace quire
