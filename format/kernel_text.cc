#include "format/kernel_text.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
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
  constexpr size_t kMaxBytes = 64 << 20;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("opening ", path));
  std::string text;
  char buffer[16384];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)) {
    if (n > 0) text.append(buffer, n);
    if (text.size() > kMaxBytes) {
      close(fd);
      return absl::ResourceExhaustedError(absl::StrCat(path, ": more than ", kMaxBytes, " bytes"));
    }
  }
  const int error = errno;
  close(fd);
  if (n < 0) return ErrnoStatus(error, absl::StrCat("reading ", path));
  return text;
}

}  // namespace quire
