// Numbers in the text files of /proc and of cgroups.
#ifndef QUIRE_FORMAT_KERNEL_TEXT_H_
#define QUIRE_FORMAT_KERNEL_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

struct KernelField {
  absl::string_view name;
  int64_t* value;
};

// Lines "Name:   12 kB", "Name: 12" and "name 12". Sets the fields whose names occur, "kB" (1024
// bytes) turned into bytes; what is no whole number, or too large, leaves its field alone.
void ParseKernelFields(absl::string_view text, absl::Span<const KernelField> fields);

// The whole of a file whose size the kernel does not tell beforehand; at most 64 MiB. NotFound,
// FailedPrecondition where it may not be read; otherwise as ErrnoStatus (format/file.h).
absl::StatusOr<std::string> ReadKernelText(const std::string& path);

}  // namespace quire

#endif  // QUIRE_FORMAT_KERNEL_TEXT_H_
