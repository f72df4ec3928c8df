#include "convert/tar_reader.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "convert/quote.h"

namespace quire {
namespace {

// POSIX ustar: a header of 512 bytes, then the data, padded to as many.
constexpr int64_t kBlockBytes = 512;
constexpr int64_t kMaxExtendedHeaderBytes = 64 << 10;

struct Field {
  int offset, bytes;
};
constexpr Field kName = {0, 100}, kSize = {124, 12}, kChecksum = {148, 8}, kMagic = {257, 5};
constexpr int kTypeOffset = 156;

absl::string_view Text(const uint8_t* header, Field field) {
  const char* p = reinterpret_cast<const char*>(header) + field.offset;
  return absl::string_view(p, strnlen(p, field.bytes));
}

// Octal digits, or (with the top bit set) GNU's big-endian binary. False where it is neither, or is
// negative, or over 2^62.
bool ReadNumber(const uint8_t* header, Field field, int64_t* value) {
  const uint8_t* p = header + field.offset;
  *value = 0;
  if ((p[0] & 0x80) != 0) {
    for (int i = 0; i < field.bytes; ++i) {
      const int byte = i == 0 ? p[0] & 0x7f : p[i];
      if (*value >> 54 != 0) return false;
      *value = *value << 8 | byte;
    }
    return true;
  }
  absl::string_view digits = Text(header, field);
  while (!digits.empty() && digits.front() == ' ') digits.remove_prefix(1);
  while (!digits.empty() && digits.back() == ' ') digits.remove_suffix(1);
  for (char c : digits) {
    if (c < '0' || c > '7') return false;
    *value = *value << 3 | (c - '0');
  }
  return !digits.empty();
}

bool ChecksumHolds(const uint8_t* header) {
  int64_t stored, sum = 0;
  if (!ReadNumber(header, kChecksum, &stored)) return false;
  for (int i = 0; i < kBlockBytes; ++i) {
    const bool own = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.bytes;
    sum += own ? ' ' : header[i];
  }
  return sum == stored;
}

}  // namespace

bool IsTar(const File& file) {
  uint8_t header[kBlockBytes];
  return file.size() >= kBlockBytes && file.ReadAt(0, absl::MakeSpan(header)).ok() &&
         Text(header, kMagic) == "ustar";
}

absl::StatusOr<std::vector<TarMember>> ReadTar(const File& file) {
  std::vector<TarMember> members;
  int count = 0;
  for (int64_t offset = 0;;) {
    const std::string place = absl::StrCat(file.path(), ": tar header at offset ", offset);
    uint8_t header[kBlockBytes];
    if (file.size() - offset < kBlockBytes) {
      return absl::DataLossError(absl::StrCat(place, ": the archive is cut short"));
    }
    if (auto s = file.ReadAt(offset, absl::MakeSpan(header)); !s.ok()) return s;
    if (std::all_of(header, header + kBlockBytes, [](uint8_t b) { return b == 0; })) return members;
    if (++count > kMaxTarMembers) {
      return absl::ResourceExhaustedError(
          absl::StrCat(file.path(), ": more than ", kMaxTarMembers, " tar members, the limit"));
    }
    if (Text(header, kMagic) != "ustar" || !ChecksumHolds(header)) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": its checksum does not hold"));
    }
    TarMember member;
    member.name = std::string(Text(header, kName));
    const std::string what = absl::StrCat(place, ", ", Quote(member.name));
    if (!ReadNumber(header, kSize, &member.bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": its size is no number, or negative"));
    }
    member.offset = offset + kBlockBytes;
    if (member.bytes > file.size() - member.offset) {
      return absl::DataLossError(absl::StrCat(what, ": ", member.bytes, " bytes, ",
                                              file.size() - member.offset,
                                              " are left of the file"));
    }
    offset = member.offset + (member.bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;

    const char type = static_cast<char>(header[kTypeOffset]);
    if (type == 'x' || type == 'g') {  // "LENGTH key=value\n", ...
      if (member.bytes > kMaxExtendedHeaderBytes) {
        return absl::ResourceExhaustedError(absl::StrCat(what, ": an extended header of ",
                                                         member.bytes, " bytes; the limit is ",
                                                         kMaxExtendedHeaderBytes));
      }
      std::string text(member.bytes, '\0');
      if (auto s = file.ReadAt(member.offset,
                               absl::MakeSpan(reinterpret_cast<uint8_t*>(&text[0]), text.size()));
          !s.ok()) {
        return s;
      }
      for (absl::string_view key : {" size=", " path=", " linkpath=", " GNU.sparse"}) {
        if (!absl::StrContains(text, key)) continue;
        return absl::UnimplementedError(absl::StrCat(what, ": an extended header with", key));
      }
      continue;
    }
    if (type != '0' && type != '\0') {
      return absl::InvalidArgumentError(absl::StrCat(what, ": a ",
                                                     type == '1' || type == '2' ? "link"
                                                     : type == '5'              ? "folder"
                                                                                : "special file",
                                                     " (type ", Quote(absl::string_view(&type, 1)),
                                                     "), where only regular files are expected"));
    }
    for (const TarMember& other : members) {
      if (other.name == member.name) {
        return absl::InvalidArgumentError(absl::StrCat(what, ": a second member of this name"));
      }
    }
    members.push_back(std::move(member));
  }
}

}  // namespace quire
