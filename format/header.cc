#include "format/header.h"

#include <xxhash.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

void Store(uint64_t value, int bytes, uint8_t* out) {
  for (int i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(value >> (8 * i));
}

uint64_t Load(const uint8_t* in, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= uint64_t{in[i]} << (8 * i);
  return value;
}

}  // namespace

void Header::Serialize(uint8_t* out) const {
  std::memset(out, 0, kHeaderBytes);
  std::memcpy(out, kMagic, sizeof kMagic);
  Store(kFormatVersion, 4, out + 8);
  Store(kHeaderBytes, 4, out + 12);
  Store(manifest_bytes, 8, out + 16);
  Store(manifest_xxh3, 8, out + 24);
  Store(file_bytes, 8, out + 32);
  Store(XXH3_64bits(out, kHeaderBytes - 8), 8, out + kHeaderBytes - 8);
}

absl::Status Header::Parse(absl::string_view path, const uint8_t* in, int64_t file_size,
                           Header* header) {
  if (file_size == 0) return absl::DataLossError(absl::StrCat(path, ": the file is empty"));
  const size_t shown = file_size < 8 ? file_size : 8;
  if (std::memcmp(in, kMagic, shown) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": not a .quire file (its first bytes differ); make one with quire convert"));
  }
  if (file_size < kHeaderBytes) {
    return absl::DataLossError(
        absl::StrCat(path, ": cut: ", file_size, " bytes, a header has ", kHeaderBytes));
  }
  if (Load(in + kHeaderBytes - 8, 8) != XXH3_64bits(in, kHeaderBytes - 8)) {
    return absl::DataLossError(
        absl::StrCat(path, ": the header's checksum differs: the file is damaged"));
  }
  const uint64_t version = Load(in + 8, 4);
  if (version != kFormatVersion) {
    return absl::UnimplementedError(absl::StrCat(path, ": format version ", version,
                                                 ", this program reads version ", kFormatVersion));
  }
  for (int i = 40; i < kHeaderBytes - 8; ++i) {
    if (in[i] != 0)
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": reserved header byte ", i, " is not 0"));
  }
  if (Load(in + 12, 4) != kHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": header of ", Load(in + 12, 4), " bytes, wanted 64"));
  }
  const uint64_t manifest_bytes = Load(in + 16, 8), file_bytes = Load(in + 32, 8);
  if (manifest_bytes > kMaxManifestBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": manifest of ", manifest_bytes,
                                                     " bytes, the limit is ", kMaxManifestBytes));
  }
  if (file_bytes != static_cast<uint64_t>(file_size)) {
    const std::string sizes = absl::StrCat(file_size, " bytes, its header says ", file_bytes);
    if (static_cast<uint64_t>(file_size) < file_bytes) {
      return absl::DataLossError(absl::StrCat(path, ": cut: ", sizes));
    }
    return absl::InvalidArgumentError(absl::StrCat(path, ": bytes after its end: ", sizes));
  }
  if (kHeaderBytes + manifest_bytes > file_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": manifest of ", manifest_bytes, " bytes in a file of ", file_bytes));
  }
  header->manifest_bytes = static_cast<int64_t>(manifest_bytes);
  header->manifest_xxh3 = Load(in + 24, 8);
  header->file_bytes = static_cast<int64_t>(file_bytes);
  return absl::OkStatus();
}

}  // namespace quire
