// The fixed first bytes of a .quire file (FORMAT.md, section "Header"), and the numbers that bound
// a file.
#ifndef QUIRE_FORMAT_HEADER_H_
#define QUIRE_FORMAT_HEADER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace quire {

// Not text (0x89), and damaged by any transfer that converts line ends.
inline constexpr uint8_t kMagic[8] = {0x89, 'Q', 'U', 'I', 'R', 'E', '\r', '\n'};
inline constexpr uint32_t kFormatVersion = 1;
inline constexpr int64_t kHeaderBytes = 64;
// The largest page size in common use (Apple's); x86's 4 KiB divides it.
inline constexpr int64_t kTensorAlignment = 16384;

// Limits of what a reader accepts. Beyond: ResourceExhausted.
inline constexpr int64_t kMaxManifestBytes = int64_t{64} << 20;
inline constexpr int64_t kMaxTokenizerBytes = int64_t{64} << 20;
inline constexpr int kMaxTensors = 1 << 17;
inline constexpr int kMaxNameBytes = 256;
inline constexpr int64_t kMaxDimension = int64_t{1} << 31;
inline constexpr int64_t kMaxElements = int64_t{1} << 44;  // of one tensor

struct Header {
  int64_t manifest_bytes = 0;
  uint64_t manifest_xxh3 = 0;
  int64_t file_bytes = 0;

  // out: kHeaderBytes.
  void Serialize(uint8_t* out) const;
  // bytes: the file's first min(kHeaderBytes, file size). InvalidArgument: not a .quire file, or
  // damaged fields; DataLoss: cut, or the checksum differs; Unimplemented: another version. `path`
  // is for messages.
  static absl::Status Parse(absl::string_view path, const uint8_t* bytes, int64_t file_size,
                            Header* header);
};

}  // namespace quire

#endif  // QUIRE_FORMAT_HEADER_H_
