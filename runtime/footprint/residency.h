// Which bytes of a mapped file are in the page cache, whoever brought them there.
#ifndef QUIRE_RUNTIME_FOOTPRINT_RESIDENCY_H_
#define QUIRE_RUNTIME_FOOTPRINT_RESIDENCY_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "format/model_file.h"

namespace quire {

// A snapshot; takes a byte a page. Being in the page cache is not being mapped by this process:
// see SmapsEntry for that.
class Residency {
 public:
  // Asks mincore, which brings nothing in. FailedPrecondition where the kernel would not tell the
  // truth: to those who neither own the file nor may write it, it calls every page resident.
  static absl::StatusOr<Residency> Read(const MappedFile& file);

  int64_t file_bytes() const { return file_bytes_; }
  int64_t bytes() const { return BytesIn(0, file_bytes_); }
  // Of the bytes [begin, end) of the file. Ranges that partition the file add up to bytes().
  int64_t BytesIn(int64_t begin, int64_t end) const;

 private:
  int64_t file_bytes_ = 0, page_bytes_ = 0;
  std::vector<uint8_t> pages_;  // bit 0: resident
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_RESIDENCY_H_
