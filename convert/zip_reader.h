// Records of a zip archive, by name: what torch.save has written since 1.6. Nothing is extracted.
#ifndef QUIRE_CONVERT_ZIP_READER_H_
#define QUIRE_CONVERT_ZIP_READER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "convert/inflate.h"
#include "format/file.h"

namespace quire {

// A LLaMA-405B checkpoint in one file has about 1,200 records.
inline constexpr int64_t kMaxZipRecords = 1 << 18;
// Of the central directory, which is read at once: 46 bytes, a name and extra fields a record.
inline constexpr int64_t kMaxZipDirectoryBytes = int64_t{32} << 20;
inline constexpr int kMaxZipNameBytes = 4096;

struct ZipRecord {
  std::string name;
  int64_t header_offset = 0;  // of the local header, in the file
  int64_t data_offset = 0;
  int64_t stored_bytes = 0;  // in the file
  int64_t bytes = 0;         // once inflated
  uint32_t crc32 = 0;        // of the inflated bytes
  bool deflated = false;
};

// Thread-safe after Open. Move-only.
class ZipReader {
 public:
  // Reads the central directory and every local header and data descriptor, and checks that they
  // agree, that names are relative and differ in more than case, and that records are disjoint
  // ranges of the file, which begins with the first and ends with the end record. No record is
  // read. InvalidArgument: malformed; DataLoss: cut short; Unimplemented: encrypted, split, or a
  // method that is neither stored nor deflate; ResourceExhausted: over a limit above.
  static absl::StatusOr<ZipReader> Open(File file);

  const File& file() const { return file_; }
  absl::Span<const ZipRecord> records() const { return records_; }  // by offset
  int Find(absl::string_view name) const;                           // index, or -1

  // Fills `out` with the record's bytes from `offset` on. A stored record costs one pread; a
  // deflated one is inflated from its start, or from where an earlier read of it ended.
  // Precondition: the range lies inside the record's `bytes`.
  absl::Status ReadAt(int record, int64_t offset, absl::Span<uint8_t> out) const;

  // An archive whose records all have a CRC-32 of zero was written without checksums
  // (torch.serialization.set_crc32_options): there is nothing to check then.

  // The whole record, its CRC-32 checked. ResourceExhausted if it is larger than `limit` bytes.
  absl::StatusOr<std::string> ReadAll(int record, int64_t limit) const;

  // Reads the whole record through a small buffer. DataLoss, naming it, where the CRC-32 differs.
  absl::Status CheckCrc(int record) const;

 private:
  explicit ZipReader(File file)
      : file_(std::move(file)), inflaters_(std::make_unique<InflaterCache>()) {}

  std::string Place(const ZipRecord& record) const;  // "x.pt: record 'a/data/0' at offset 64"
  absl::Status CheckAgainst(uint32_t crc, const ZipRecord& record) const;

  File file_;
  std::vector<ZipRecord> records_;
  bool has_checksums_ = false;
  absl::flat_hash_map<absl::string_view, int> by_name_;  // views of records_' names
  std::unique_ptr<InflaterCache> inflaters_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_ZIP_READER_H_
