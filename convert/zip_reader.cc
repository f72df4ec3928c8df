#include "convert/zip_reader.h"

#include <fcntl.h>
#include <zlib.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "convert/little_endian.h"
#include "convert/quote.h"

namespace quire {
namespace {

// Field offsets below are those of PKWARE's APPNOTE.TXT, sections 4.3.7 to 4.3.16 and 4.5.3.
constexpr uint32_t kLocalMagic = 0x04034b50;
constexpr uint32_t kDescriptorMagic = 0x08074b50;
constexpr uint32_t kCentralMagic = 0x02014b50;
constexpr uint32_t kEndMagic = 0x06054b50;
constexpr uint32_t kEnd64Magic = 0x06064b50;
constexpr uint32_t kLocatorMagic = 0x07064b50;

constexpr int64_t kLocalBytes = 30;
constexpr int64_t kCentralBytes = 46;
constexpr int64_t kEndBytes = 22;
constexpr int64_t kEnd64Bytes = 56;
constexpr int64_t kLocatorBytes = 20;
constexpr int64_t kMaxDescriptorBytes = 24;
constexpr int64_t kMaxCommentBytes = 65535;

constexpr uint16_t kFlagEncrypted = 1 << 0;
constexpr uint16_t kFlagDescriptor = 1 << 3;
constexpr uint16_t kFlagPatch = 1 << 5;
constexpr uint16_t kFlagStrongEncryption = 1 << 6;
constexpr uint16_t kFlagMasked = 1 << 13;

constexpr uint16_t kStored = 0, kDeflated = 8;
constexpr uint16_t kZip64Extra = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the real value is in a zip64 field

uint16_t U16(const uint8_t* p) { return LoadLittleEndian<uint16_t>(p); }
uint32_t U32(const uint8_t* p) { return LoadLittleEndian<uint32_t>(p); }
uint64_t U64(const uint8_t* p) { return LoadLittleEndian<uint64_t>(p); }

absl::Status Invalid(absl::string_view place, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", what));
}

// Where the central directory is, as the end records say.
struct Directory {
  int64_t offset = 0;
  int64_t bytes = 0;
  int64_t records = 0;
};

// The payload of the zip64 extra field (empty: none); every field must fit.
absl::StatusOr<absl::Span<const uint8_t>> FindZip64(absl::Span<const uint8_t> extra,
                                                    const std::string& place) {
  absl::Span<const uint8_t> found;
  while (!extra.empty()) {
    if (extra.size() < 4) {
      return Invalid(place, absl::StrCat("extra fields end in ", extra.size(), " stray bytes"));
    }
    const size_t n = U16(&extra[2]);
    if (n > extra.size() - 4) {
      return Invalid(place, absl::StrCat("an extra field of ", n, " bytes runs past the ",
                                         extra.size() - 4, " bytes that are left of its header"));
    }
    if (U16(&extra[0]) == kZip64Extra) found = extra.subspan(4, n);
    extra.remove_prefix(4 + n);
  }
  return found;
}

// Replaces *value, where it says so, by the next eight bytes of the zip64 field.
absl::Status Widen(absl::Span<const uint8_t>* zip64, uint64_t* value, const std::string& place) {
  if (*value != kIn64) return absl::OkStatus();
  if (zip64->size() < 8) return Invalid(place, "needs a zip64 extra field that it does not have");
  *value = U64(zip64->data());
  zip64->remove_prefix(8);
  return absl::OkStatus();
}

absl::StatusOr<Directory> FindDirectory(const File& file) {
  const std::string& path = file.path();
  const int64_t tail_bytes = std::min(file.size(), kLocatorBytes + kEndBytes + kMaxCommentBytes);
  std::vector<uint8_t> tail(tail_bytes);
  if (auto s = file.ReadAt(file.size() - tail_bytes, absl::MakeSpan(tail)); !s.ok()) return s;
  int64_t at = tail_bytes - kEndBytes;  // of the end record, in `tail`
  while (at >= 0 && U32(&tail[at]) != kEndMagic) --at;
  if (at < 0) {
    return absl::DataLossError(absl::StrCat(path,
                                            ": no end record: a zip archive that was cut short (",
                                            file.size(), " bytes are here)"));
  }
  const uint8_t* end = &tail[at];
  int64_t end_offset = file.size() - tail_bytes + at;
  const int64_t comment_bytes = U16(end + 20), behind_bytes = tail_bytes - at - kEndBytes;
  if (comment_bytes > behind_bytes) {
    return absl::DataLossError(absl::StrCat(path, ": the zip end record promises a comment of ",
                                            comment_bytes, " bytes, the file ends before its end"));
  }
  if (comment_bytes < behind_bytes) {
    return Invalid(path, absl::StrCat("trailing bytes: ", behind_bytes - comment_bytes,
                                      " behind the zip end record at offset ", end_offset));
  }
  for (int64_t i = at + kEndBytes; i + 4 <= tail_bytes; ++i) {
    if (U32(&tail[i]) != kEndMagic) continue;
    return Invalid(path, "two zip end records, one of them cut short by the end of the comment");
  }
  if (U16(end + 4) != 0 || U16(end + 6) != 0) {
    return absl::UnimplementedError(absl::StrCat(path, ": a zip archive split over several disks"));
  }
  uint64_t records = U16(end + 10), bytes = U32(end + 12), offset = U32(end + 16);
  if (U16(end + 8) != records)
    return Invalid(path, "the zip end record counts its entries in two ways");

  const uint8_t* locator = at >= kLocatorBytes ? end - kLocatorBytes : nullptr;
  if (locator != nullptr && U32(locator) == kLocatorMagic) {
    const uint64_t end64_offset = U64(locator + 8);
    end_offset -= kLocatorBytes;
    if (U32(locator + 4) != 0 || U32(locator + 16) > 1) {
      return absl::UnimplementedError(
          absl::StrCat(path, ": a zip archive split over several disks"));
    }
    if (end_offset < kEnd64Bytes ||
        end64_offset != static_cast<uint64_t>(end_offset - kEnd64Bytes)) {
      return Invalid(
          path, absl::StrCat("the zip64 end record should be at offset ", end_offset - kEnd64Bytes,
                             ", its locator says ", end64_offset,
                             ": other bytes, perhaps another archive, stand before this one"));
    }
    uint8_t end64[kEnd64Bytes];
    if (auto s = file.ReadAt(end64_offset, absl::MakeSpan(end64)); !s.ok()) return s;
    if (U32(end64) != kEnd64Magic || U64(end64 + 4) != kEnd64Bytes - 12) {
      return Invalid(path, absl::StrCat("no zip64 end record at offset ", end64_offset));
    }
    if (U32(end64 + 16) != 0 || U32(end64 + 20) != 0) {
      return absl::UnimplementedError(
          absl::StrCat(path, ": a zip archive split over several disks"));
    }
    const uint64_t records64 = U64(end64 + 32), bytes64 = U64(end64 + 40),
                   offset64 = U64(end64 + 48);
    if (U64(end64 + 24) != records64 || (records != 0xffff && records != records64) ||
        (bytes != kIn64 && bytes != bytes64) || (offset != kIn64 && offset != offset64)) {
      return Invalid(path, "the zip end record and the zip64 end record differ");
    }
    records = records64;
    bytes = bytes64;
    offset = offset64;
    end_offset -= kEnd64Bytes;
  }

  if (records > static_cast<uint64_t>(kMaxZipRecords)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": ", records, " zip entries; the limit is ", kMaxZipRecords));
  }
  if (bytes > static_cast<uint64_t>(kMaxZipDirectoryBytes)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        path, ": a zip directory of ", bytes, " bytes; the limit is ", kMaxZipDirectoryBytes));
  }
  if (offset > static_cast<uint64_t>(end_offset) ||
      bytes > static_cast<uint64_t>(end_offset) - offset) {
    return Invalid(path, absl::StrCat("the zip directory, ", bytes, " bytes at offset ", offset,
                                      ", runs past offset ", end_offset, " where it has to end"));
  }
  if (offset + bytes != static_cast<uint64_t>(end_offset)) {
    uint8_t magic[4] = {};
    if (end_offset >= kEndBytes) {
      if (auto s = file.ReadAt(end_offset - kEndBytes, absl::MakeSpan(magic)); !s.ok()) return s;
    }
    return Invalid(path, U32(magic) == kEndMagic
                             ? absl::StrCat("two zip end records, one of them at offset ",
                                            end_offset - kEndBytes)
                             : absl::StrCat(end_offset - offset - bytes,
                                            " bytes between the zip directory and its end record"));
  }
  if (records * kCentralBytes > bytes) {
    return Invalid(
        path, absl::StrCat(records, " zip entries do not fit a directory of ", bytes, " bytes"));
  }
  return Directory{static_cast<int64_t>(offset), static_cast<int64_t>(bytes),
                   static_cast<int64_t>(records)};
}

absl::Status CheckName(absl::string_view name, const std::string& place) {
  if (name.empty()) return Invalid(place, "an empty record name");
  if (name.size() > kMaxZipNameBytes) {
    return Invalid(place, absl::StrCat("a record name of ", name.size(), " bytes; the limit is ",
                                       kMaxZipNameBytes));
  }
  if (absl::StrContains(name, absl::string_view("\0", 1)) || absl::StrContains(name, '\\')) {
    return Invalid(place, "a record name with a NUL or a backslash");
  }
  if (name[0] == '/') return Invalid(place, "an absolute record name");
  for (absl::string_view part : absl::StrSplit(name, '/')) {
    if (part == "..") return Invalid(place, "a record name that leaves the archive ('..')");
  }
  return absl::OkStatus();
}

// What the local header repeats of the directory's entry.
struct CentralFields {
  uint16_t flags;
  uint16_t method;
};

absl::StatusOr<CentralFields> ParseCentral(const std::string& path, absl::Span<const uint8_t>* rest,
                                           int64_t data_end, ZipRecord* record) {
  const std::string where = absl::StrCat(path, ": zip directory");
  if (static_cast<int64_t>(rest->size()) < kCentralBytes || U32(rest->data()) != kCentralMagic) {
    return Invalid(where, absl::StrCat("no entry where one has to be, ", rest->size(),
                                       " bytes before its end"));
  }
  const uint8_t* p = rest->data();
  const uint16_t flags = U16(p + 8), method = U16(p + 10);
  const size_t name_bytes = U16(p + 28), extra_bytes = U16(p + 30), comment_bytes = U16(p + 32);
  if (name_bytes + extra_bytes + comment_bytes > rest->size() - kCentralBytes) {
    return Invalid(where,
                   absl::StrCat("an entry runs past its end, ", rest->size(), " bytes before it"));
  }
  record->name.assign(reinterpret_cast<const char*>(p + kCentralBytes), name_bytes);
  const std::string place = absl::StrCat(path, ": zip record ", Quote(record->name));
  if (auto s = CheckName(record->name, place); !s.ok()) return s;

  auto zip64 = FindZip64(rest->subspan(kCentralBytes + name_bytes, extra_bytes), place);
  if (!zip64.ok()) return zip64.status();
  uint64_t bytes = U32(p + 24), stored_bytes = U32(p + 20), offset = U32(p + 42);
  for (uint64_t* value : {&bytes, &stored_bytes, &offset}) {
    if (auto s = Widen(&*zip64, value, place); !s.ok()) return s;
  }
  rest->remove_prefix(kCentralBytes + name_bytes + extra_bytes + comment_bytes);

  if ((flags & (kFlagEncrypted | kFlagStrongEncryption | kFlagMasked)) != 0) {
    return absl::UnimplementedError(absl::StrCat(place, ": encrypted"));
  }
  if ((flags & kFlagPatch) != 0 || (method != kStored && method != kDeflated)) {
    return absl::UnimplementedError(absl::StrCat(place, ": compression method ", method,
                                                 "; 0 (stored) and 8 (deflate) are read"));
  }
  if (U16(p + 34) != 0) {
    return absl::UnimplementedError(
        absl::StrCat(place, ": a zip archive split over several disks"));
  }
  if (offset > static_cast<uint64_t>(data_end) ||
      data_end - static_cast<int64_t>(offset) < kLocalBytes) {
    return Invalid(place, absl::StrCat("its header would be at offset ", offset,
                                       ", the directory begins at ", data_end));
  }
  if (stored_bytes > static_cast<uint64_t>(data_end)) {
    return Invalid(place, absl::StrCat(stored_bytes, " bytes in an archive of ", data_end));
  }
  if (method == kStored && bytes != stored_bytes) {
    return Invalid(place, absl::StrCat("stored, yet ", stored_bytes, " bytes stand for ", bytes));
  }
  if (bytes / kMaxDeflateRatio > stored_bytes ||
      (bytes / kMaxDeflateRatio == stored_bytes && bytes % kMaxDeflateRatio != 0)) {
    return absl::ResourceExhaustedError(absl::StrCat(place, ": would inflate ", stored_bytes,
                                                     " bytes to ", bytes, ", more than deflate's ",
                                                     kMaxDeflateRatio, " to 1"));
  }
  record->header_offset = static_cast<int64_t>(offset);
  record->stored_bytes = static_cast<int64_t>(stored_bytes);
  record->bytes = static_cast<int64_t>(bytes);
  record->crc32 = U32(p + 16);
  record->deflated = method == kDeflated;
  return CentralFields{flags, method};
}

// Checks the local header, and finds where the data begins.
absl::Status CheckLocal(const File& file, int64_t data_end, const CentralFields& central,
                        ZipRecord* record) {
  const std::string place = absl::StrCat(file.path(), ": zip record ", Quote(record->name),
                                         " at offset ", record->header_offset);
  // One read for the header, its name, and torch's padding; seldom a second.
  std::vector<uint8_t> header(
      std::min<int64_t>(kLocalBytes + record->name.size() + 128, data_end - record->header_offset));
  if (auto s = file.ReadAt(record->header_offset, absl::MakeSpan(header)); !s.ok()) return s;
  if (U32(&header[0]) != kLocalMagic) return Invalid(place, "no local header there");
  const int64_t name_bytes = U16(&header[26]), extra_bytes = U16(&header[28]);
  const int64_t header_bytes = kLocalBytes + name_bytes + extra_bytes;
  if (header_bytes > data_end - record->header_offset ||
      record->stored_bytes > data_end - record->header_offset - header_bytes) {
    return Invalid(place, absl::StrCat("its ", record->stored_bytes,
                                       " bytes run into the directory at offset ", data_end));
  }
  if (static_cast<int64_t>(header.size()) < header_bytes) {
    header.resize(header_bytes);
    if (auto s = file.ReadAt(record->header_offset, absl::MakeSpan(header)); !s.ok()) return s;
  }
  const absl::string_view name(reinterpret_cast<const char*>(&header[kLocalBytes]), name_bytes);
  if (name != record->name) {
    return Invalid(place, absl::StrCat("its local header calls it ", Quote(name)));
  }
  const uint16_t flags = U16(&header[6]);
  if (flags != central.flags || U16(&header[8]) != central.method) {
    return Invalid(place, "flags or method differ between its local header and the directory");
  }
  const absl::Span<const uint8_t> extra(header.data() + kLocalBytes + name_bytes, extra_bytes);
  auto zip64 = FindZip64(extra, place);
  if (!zip64.ok()) return zip64.status();
  const uint32_t crc = U32(&header[14]);
  uint64_t stored_bytes = U32(&header[18]), bytes = U32(&header[22]);
  for (uint64_t* value : {&bytes, &stored_bytes}) {
    if (auto s = Widen(&*zip64, value, place); !s.ok()) return s;
  }
  // With a data descriptor behind the data, the header may leave these at zero.
  const bool described = (flags & kFlagDescriptor) != 0;
  auto agrees = [described](uint64_t local, uint64_t central) {
    return local == central || (described && local == 0);
  };
  if (!agrees(crc, record->crc32) || !agrees(bytes, record->bytes) ||
      !agrees(stored_bytes, record->stored_bytes)) {
    return Invalid(place, absl::StrCat("its local header says ", stored_bytes, " bytes for ", bytes,
                                       ", the directory ", record->stored_bytes, " for ",
                                       record->bytes, ", or their CRC-32 differ"));
  }
  record->data_offset = record->header_offset + header_bytes;
  return absl::OkStatus();
}

// Bytes of the data descriptor behind the data: with or without its signature, with sizes of 32 or
// 64 bits; nothing says which, so the one that repeats the directory's values is taken.
absl::StatusOr<int64_t> CheckDescriptor(const File& file, int64_t data_end,
                                        const ZipRecord& record) {
  const int64_t offset = record.data_offset + record.stored_bytes;
  const std::string place = absl::StrCat(file.path(), ": zip record ", Quote(record.name),
                                         " at offset ", record.header_offset);
  uint8_t bytes[kMaxDescriptorBytes];
  const int64_t n = std::min<int64_t>(kMaxDescriptorBytes, data_end - offset);
  if (auto s = file.ReadAt(offset, absl::MakeSpan(bytes, n)); !s.ok()) return s;
  for (int64_t signature_bytes : {4, 0}) {
    if (signature_bytes == 4 && (n < 4 || U32(bytes) != kDescriptorMagic)) continue;
    const uint8_t* p = bytes + signature_bytes;
    const int64_t left = n - signature_bytes;
    if (left < 12 || U32(p) != record.crc32) continue;
    const auto stored_bytes = static_cast<uint64_t>(record.stored_bytes);
    const auto full_bytes = static_cast<uint64_t>(record.bytes);
    if (U32(p + 4) == stored_bytes && U32(p + 8) == full_bytes) return signature_bytes + 12;
    if (left >= 20 && U64(p + 4) == stored_bytes && U64(p + 12) == full_bytes) {
      return signature_bytes + 20;
    }
  }
  return Invalid(
      place, absl::StrCat("the data descriptor at offset ", offset, " differs from the directory"));
}

}  // namespace

absl::StatusOr<ZipReader> ZipReader::Open(File file) {
  auto directory = FindDirectory(file);
  if (!directory.ok()) return directory.status();
  std::vector<uint8_t> central(directory->bytes);
  if (auto s = file.ReadAt(directory->offset, absl::MakeSpan(central)); !s.ok()) return s;

  ZipReader zip(std::move(file));
  const std::string& path = zip.file_.path();
  std::vector<std::pair<ZipRecord, CentralFields>> entries(directory->records);
  absl::Span<const uint8_t> rest(central);
  for (auto& [record, fields] : entries) {
    auto parsed = ParseCentral(path, &rest, directory->offset, &record);
    if (!parsed.ok()) return parsed.status();
    fields = *parsed;
  }
  if (!rest.empty()) {
    return Invalid(path,
                   absl::StrCat("zip directory: ", rest.size(), " bytes behind its last entry"));
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.first.header_offset < b.first.header_offset;
  });

  // On a cold file each local header is a seek: all of them at once.
  for (const auto& [record, fields] : entries) {
    posix_fadvise(zip.file_.fd(), record.header_offset, kLocalBytes, POSIX_FADV_WILLNEED);
  }

  int64_t end = 0;  // of the record before
  zip.records_.reserve(entries.size());
  for (auto& [record, fields] : entries) {
    if (zip.records_.empty() && record.header_offset != 0) {
      return Invalid(path, absl::StrCat("prefix of ", record.header_offset,
                                        " bytes before the first zip record ", Quote(record.name)));
    }
    if (record.header_offset < end) {
      return Invalid(path,
                     absl::StrCat("zip records ", Quote(zip.records_.back().name), " and ",
                                  Quote(record.name), " overlap at offset ", record.header_offset));
    }
    if (auto s = CheckLocal(zip.file_, directory->offset, fields, &record); !s.ok()) return s;
    end = record.data_offset + record.stored_bytes;
    if ((fields.flags & kFlagDescriptor) != 0) {
      auto descriptor_bytes = CheckDescriptor(zip.file_, directory->offset, record);
      if (!descriptor_bytes.ok()) return descriptor_bytes.status();
      end += *descriptor_bytes;
    }
    zip.has_checksums_ |= record.crc32 != 0;
    zip.records_.push_back(std::move(record));
  }
  // Readers that pass over case, as torch's, would take the one for the other.
  absl::flat_hash_map<std::string, int> without_case;
  for (size_t i = 0; i < zip.records_.size(); ++i) {
    const std::string& name = zip.records_[i].name;
    const auto [other, added] = without_case.emplace(absl::AsciiStrToLower(name), i);
    if (!added) {
      return Invalid(path, absl::StrCat("two zip records named ", Quote(name), " and ",
                                        Quote(zip.records_[other->second].name)));
    }
    zip.by_name_.emplace(name, i);
  }
  return zip;
}

int ZipReader::Find(absl::string_view name) const {
  auto it = by_name_.find(name);
  return it == by_name_.end() ? -1 : it->second;
}

std::string ZipReader::Place(const ZipRecord& record) const {
  return absl::StrCat(file_.path(), ": zip record ", Quote(record.name), " at offset ",
                      record.header_offset);
}

absl::Status ZipReader::ReadAt(int record, int64_t offset, absl::Span<uint8_t> out) const {
  const ZipRecord& r = records_[record];
  if (!r.deflated) return file_.ReadAt(r.data_offset + offset, out);
  return inflaters_->ReadAt(file_, {r.data_offset, r.stored_bytes, r.bytes}, offset, out, Place(r));
}

absl::Status ZipReader::CheckAgainst(uint32_t crc, const ZipRecord& record) const {
  if (!has_checksums_ || crc == record.crc32) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(Place(record), ": CRC-32 of its bytes is ", absl::Hex(crc, absl::kZeroPad8),
                   ", the archive recorded ", absl::Hex(record.crc32, absl::kZeroPad8)));
}

absl::StatusOr<std::string> ZipReader::ReadAll(int record, int64_t limit) const {
  const ZipRecord& r = records_[record];
  if (r.bytes > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Place(r), ": ", r.bytes, " bytes; the limit is ", limit));
  }
  std::string bytes(r.bytes, '\0');
  auto out = absl::MakeSpan(reinterpret_cast<uint8_t*>(&bytes[0]), bytes.size());
  if (auto s = ReadAt(record, 0, out); !s.ok()) return s;
  if (auto s = CheckAgainst(crc32_z(0, out.data(), out.size()), r); !s.ok()) return s;
  return bytes;
}

absl::Status ZipReader::CheckCrc(int record) const {
  const ZipRecord& r = records_[record];
  std::vector<uint8_t> buffer(std::min<int64_t>(r.bytes, 256 << 10));
  uint32_t crc = 0;
  for (int64_t done = 0; done < r.bytes;) {
    const int64_t n = std::min<int64_t>(buffer.size(), r.bytes - done);
    if (auto s = ReadAt(record, done, absl::MakeSpan(buffer.data(), n)); !s.ok()) return s;
    crc = crc32_z(crc, buffer.data(), n);
    done += n;
  }
  return CheckAgainst(crc, r);
}

}  // namespace quire
