// Members of a tar archive: what torch.save wrote before 0.2. Nothing is extracted.
#ifndef QUIRE_CONVERT_TAR_READER_H_
#define QUIRE_CONVERT_TAR_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "format/file.h"

namespace quire {

// torch writes four, each with a header of its own for a fractional time.
inline constexpr int kMaxTarMembers = 64;

struct TarMember {
  std::string name;
  int64_t offset = 0;  // of its data, in the file
  int64_t bytes = 0;
};

// True if the file begins with a header that says "ustar".
bool IsTar(const File& file);

// The regular files in it, each inside the archive. InvalidArgument: a malformed header, a size
// that is negative, a link, folder or device, a name used twice; DataLoss: cut short;
// Unimplemented: an extended header that changes names or sizes; ResourceExhausted: over the limit.
absl::StatusOr<std::vector<TarMember>> ReadTar(const File& file);

}  // namespace quire

#endif  // QUIRE_CONVERT_TAR_READER_H_
