#include "convert/zip_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"
#include "format/test_caps.h"

namespace quire {
namespace {

using absl::StatusCode;

absl::StatusOr<ZipReader> OpenZip(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  return ZipReader::Open(*std::move(file));
}

void Refused(absl::Span<const ZipEntry> entries, const ZipTail& tail, StatusCode code,
             const std::vector<std::string>& words) {
  ExpectRefused(BuildZip(entries, tail), OpenZip, code, words);
}

ZipEntry Entry(const std::string& name, const std::string& data) {
  ZipEntry e;
  e.name = name;
  e.data = data;
  return e;
}

const std::vector<ZipEntry>& TwoEntries() {
  static const auto* const entries = new std::vector<ZipEntry>{
      Entry("x/one", std::string(100, '1')), Entry("x/two", std::string(1000, '2'))};
  return *entries;
}

ZipReader Open(absl::Span<const ZipEntry> entries, const ZipTail& tail = {}) {
  auto zip = OpenZip(WriteTestFile(BuildZip(entries, tail)));
  EXPECT_TRUE(zip.ok()) << zip.status();
  return *std::move(zip);
}

void ExpectContents(const ZipReader& zip, absl::Span<const ZipEntry> entries) {
  ASSERT_EQ(zip.records().size(), entries.size());
  for (const ZipEntry& e : entries) {
    const int record = zip.Find(e.name);
    ASSERT_GE(record, 0) << e.name;
    auto data = zip.ReadAll(record, 1 << 20);
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_EQ(*data, e.data);
    EXPECT_TRUE(zip.CheckCrc(record).ok());
  }
}

// Found by fuzzing: all of the stored bytes are taken in while a match of up to 258 bytes is only
// given out in part; what is left of it was taken for a stream that is cut short.
TEST(ZipReader, RangesThatEndInsideAMatch) {
  for (const int bytes : {28, 300, 100000}) {
    ZipEntry entry = Entry("x/a", std::string(bytes, 'a'));
    entry.deflate = true;
    const ZipReader zip = Open({entry});
    for (const int split : {1, 2, 14, bytes / 2, bytes - 1}) {
      std::string data(bytes, '\0');
      auto* out = reinterpret_cast<uint8_t*>(&data[0]);
      auto status = zip.ReadAt(0, 0, absl::MakeSpan(out, split));
      ASSERT_TRUE(status.ok()) << bytes << " " << split << " " << status;
      status = zip.ReadAt(0, split, absl::MakeSpan(out + split, bytes - split));
      ASSERT_TRUE(status.ok()) << bytes << " " << split << " " << status;
      EXPECT_EQ(data, entry.data);
    }
  }
}

TEST(ZipReader, ReadsStoredAndDeflatedRecordsWithAndWithoutDescriptors) {
  std::vector<ZipEntry> entries;
  for (int i = 0; i < 16; ++i) {
    std::string data;
    for (int k = 0; k < 1000 * i; ++k) data += static_cast<char>(k * k >> (i % 5));
    entries.push_back(Entry("x/" + std::to_string(i), data));
    entries.back().deflate = (i & 1) != 0;
    entries.back().descriptor = (i & 2) != 0;
    entries.back().zip64 = (i & 4) != 0 && entries.back().descriptor;
  }
  ExpectContents(Open(entries), entries);
  ZipTail plain;
  plain.zip64 = false;
  ExpectContents(Open(entries, plain), entries);
}

TEST(ZipReader, ReadsRangesOfRecords) {
  std::string data;
  for (int i = 0; i < 300000; ++i) data += static_cast<char>(i * 2654435761u >> 13);
  std::vector<ZipEntry> entries = {Entry("x/stored", data), Entry("x/deflated", data)};
  entries[1].deflate = true;
  const ZipReader zip = Open(entries);
  auto read_ranges = [&](int seed) {
    uint32_t state = seed;
    for (int i = 0; i < 60; ++i) {
      state = state * 1664525 + 1013904223;
      const int64_t offset = state % data.size();
      const int64_t size = (state >> 7) % (data.size() - offset + 1) / 16;
      std::string out(size, '\0');
      for (const char* name : {"x/stored", "x/deflated"}) {
        ASSERT_TRUE(zip.ReadAt(zip.Find(name), offset,
                               absl::MakeSpan(reinterpret_cast<uint8_t*>(&out[0]), size))
                        .ok());
        ASSERT_EQ(out, data.substr(offset, size));
      }
    }
  };
  std::thread other(read_ranges, 1);
  read_ranges(2);
  other.join();
}

// A record larger than what is kept of it, from its end to its beginning.
TEST(ZipReader, ReadsADeflatedRecordBackwards) {
  AllowThisTest(4, 128);
  ZipEntry e = Entry("x/a", std::string(24 << 20, '\0'));
  e.deflate = true;
  for (size_t i = 0; i < e.data.size(); i += 4096) e.data[i] = static_cast<char>(i >> 12);
  const ZipReader zip = Open({e});
  int wrong = 0;
  for (auto i = static_cast<int64_t>(e.data.size()); i > 0;) {
    i -= 4096;
    uint8_t byte;
    ASSERT_TRUE(zip.ReadAt(0, i, absl::MakeSpan(&byte, 1)).ok());
    wrong += byte != static_cast<uint8_t>(e.data[i]);
  }
  EXPECT_EQ(wrong, 0);
}

TEST(ZipReader, AnEmptyArchiveHasNoRecords) { EXPECT_TRUE(Open({}).records().empty()); }

TEST(ZipReader, Case01_FlippedByteStaleCrc) {
  std::string bytes = BuildZip(TwoEntries());
  bytes[bytes.find("2222") + 500] ^= 1;
  const std::string path = WriteTestFile(bytes);
  auto zip = OpenZip(path);
  ASSERT_TRUE(zip.ok()) << zip.status();
  EXPECT_TRUE(zip->CheckCrc(zip->Find("x/one")).ok());
  auto check = [&](const std::string&) {
    return absl::StatusOr<int>(zip->CheckCrc(zip->Find("x/two")));
  };
  ExpectRefusedFile(path, bytes.size(), check, StatusCode::kDataLoss, {"x/two", "CRC-32"});
  auto read = [&](const std::string&) { return zip->ReadAll(zip->Find("x/two"), 1 << 20); };
  ExpectRefusedFile(path, bytes.size(), read, StatusCode::kDataLoss, {"x/two", "CRC-32"});
}

TEST(ZipReader, ChecksumsThatNobodyComputed) {
  std::vector<ZipEntry> entries = TwoEntries();
  for (ZipEntry& entry : entries) entry.crc32 = entry.descriptor_crc32 = 0;
  const ZipReader zip = Open(entries);
  for (const ZipEntry& entry : entries) {
    EXPECT_TRUE(zip.CheckCrc(zip.Find(entry.name)).ok());
    EXPECT_EQ(*zip.ReadAll(zip.Find(entry.name), 1 << 20), entry.data);
  }
  // One alone is damage.
  entries = TwoEntries();
  entries[1].crc32 = entries[1].descriptor_crc32 = 0;
  const ZipReader other = Open(entries);
  EXPECT_TRUE(other.CheckCrc(other.Find(entries[0].name)).ok());
  EXPECT_EQ(other.CheckCrc(other.Find(entries[1].name)).code(), StatusCode::kDataLoss);
}

TEST(ZipReader, Case02_CutTail) {
  const std::string bytes = BuildZip(TwoEntries());
  for (size_t cut : {1, 10, 22, 42, 98, 200, 1000}) {
    ExpectRefused(bytes.substr(0, bytes.size() - cut), OpenZip, StatusCode::kDataLoss,
                  {"no end record"});
  }
  ExpectRefused("PK\3\4", OpenZip, StatusCode::kDataLoss, {"no end record"});
}

TEST(ZipReader, Case03_PrefixJunk) {
  ZipTail tail;
  tail.prefix = "#!/bin/sh\n";
  Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"prefix of 10 bytes", "x/one"});
  // Offsets that do not count the prefix.
  ExpectRefused("junk" + BuildZip(TwoEntries()), OpenZip, StatusCode::kInvalidArgument,
                {"zip64 end record"});
  ZipTail plain;
  plain.zip64 = false;
  ExpectRefused("junk" + BuildZip(TwoEntries(), plain), OpenZip, StatusCode::kInvalidArgument,
                {"4 bytes between"});
}

TEST(ZipReader, Case03_TrailingJunk) {
  ZipTail tail;
  tail.after_end = "junk";
  Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"trailing bytes: 4"});
  tail.comment = "a comment";
  Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"trailing bytes: 4"});
}

TEST(ZipReader, Case03_Comments) {
  ZipTail tail;
  for (const size_t bytes : {1, 22, 65535}) {
    tail.comment = std::string(bytes, 'c');
    for (const bool zip64 : {true, false}) {
      tail.zip64 = zip64;
      ExpectContents(Open(TwoEntries(), tail), TwoEntries());
    }
    const std::string bytes_there = BuildZip(TwoEntries(), tail);
    ExpectRefused(bytes_there.substr(0, bytes_there.size() - 1), OpenZip, StatusCode::kDataLoss,
                  {"comment of " + std::to_string(bytes)});
  }
  // An end record inside of it, whole or not.
  const std::string end = BuildZip({}).substr(76);
  ASSERT_EQ(end.size(), 22u);
  for (const std::string& comment : {end, "c" + end, end.substr(0, 4), "c" + end.substr(0, 21)}) {
    tail.comment = comment;
    Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"end record"});
  }
  tail.comment = end + "c";
  Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"trailing bytes: 1"});
}

TEST(ZipReader, Case03_TwoEndRecords) {
  const std::string bytes = BuildZip(TwoEntries());
  ExpectRefused(bytes + bytes.substr(bytes.size() - 22), OpenZip, StatusCode::kInvalidArgument,
                {"two zip end records"});
  // A second archive whose directory is the first's, seen by readers that search backwards.
  ExpectRefused(bytes + BuildZip({}), OpenZip, StatusCode::kInvalidArgument, {"zip64 end record"});
}

TEST(ZipReader, Case04_DuplicateEntry) {
  Refused({Entry("x/a", "1"), Entry("x/b", "2"), Entry("x/a", "3")}, {},
          StatusCode::kInvalidArgument, {"two zip records", "x/a"});
}

TEST(ZipReader, Case05_NamesMatchExactly) {
  const ZipReader zip = Open({Entry("x/DATA.PKL", "1")});
  EXPECT_EQ(zip.Find("x/data.pkl"), -1);
  EXPECT_EQ(zip.Find("x/DATA.PKL"), 0);
  // Where there are both, torch takes either.
  Refused({Entry("x/data.pkl", "1"), Entry("x/DATA.PKL", "2")}, {}, StatusCode::kInvalidArgument,
          {"two zip records", "x/data.pkl", "x/DATA.PKL"});
  Refused({Entry("x/data/0", "1"), Entry("x/Data/0", "1")}, {}, StatusCode::kInvalidArgument,
          {"two zip records", "x/data/0", "x/Data/0"});
  const std::vector<ZipEntry> other = {Entry("x/\u00e9", "1"), Entry("x/\u00c9", "2")};
  ExpectContents(Open(other), other);
}

TEST(ZipReader, Case06_LocalHeaderDiffers) {
  ZipEntry e = Entry("x/a", "data");
  e.local_name = "x/b";
  Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "x/b", "local header"});
  e = Entry("x/a", "data");
  e.local_method = 8;
  Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "method"});
  for (bool descriptor : {true, false}) {
    e = Entry("x/a", "data");
    e.descriptor = descriptor;
    e.local_bytes = 5;
    Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "5", "4"});
    e = Entry("x/a", "data");
    e.descriptor = descriptor;
    e.local_crc32 = 5;
    Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "CRC-32"});
  }
  // Only a data descriptor excuses zeros.
  e = Entry("x/a", "data");
  e.descriptor = false;
  e.local_bytes = 0;
  Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a"});
}

TEST(ZipReader, Case07_GenuineTorchDescriptorsWithZip64) {
  std::vector<ZipEntry> entries = TwoEntries();
  entries[0].zip64 = entries[1].zip64 = true;
  ExpectContents(Open(entries), entries);
  // Beyond 4 GiB only the offset needs the field; sizes stay in their places.
  std::string bytes = BuildZip({Entry("x/a", "data")});
  ZipEntry e = Entry("x/a", "data");
  e.central_extra = Le(1, 2) + Le(8, 2) + Le(0, 8);
  bytes = BuildZip({e});
  const size_t central = bytes.find("PK\1\2");
  bytes.replace(central + 42, 4, "\xff\xff\xff\xff");
  auto zip = OpenZip(WriteTestFile(bytes));
  ASSERT_TRUE(zip.ok()) << zip.status();
  ExpectContents(*zip, {e});
}

TEST(ZipReader, Case08_DescriptorDiffers) {
  for (bool zip64 : {false, true}) {
    ZipEntry e = Entry("x/a", "data");
    e.zip64 = zip64;
    e.descriptor_crc32 = 1;
    Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "descriptor"});
    e = Entry("x/a", "data");
    e.zip64 = zip64;
    e.descriptor_bytes = 5;
    Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "descriptor"});
  }
}

TEST(ZipReader, Case09_OverlappingEntries) {
  // The second claims the first's bytes as well: the directory says 0, and the header there agrees.
  std::vector<ZipEntry> entries = {Entry("x/a", std::string(64, 'a')), Entry("x/b", "b")};
  entries[1].offset = 0;
  Refused(entries, {}, StatusCode::kInvalidArgument, {"x/a", "x/b", "overlap"});
  // A record inside another one's data.
  const std::string inner = BuildZip({Entry("x/b", "b")}).substr(0, 140);
  entries = {Entry("x/a", inner), Entry("x/b", "b")};
  entries[1].offset = 64;
  Refused(entries, {}, StatusCode::kInvalidArgument, {"x/a", "x/b", "overlap"});
}

TEST(ZipReader, Case10_DeflateBomb) {
  AllowThisTest(2, 128);
  ZipEntry e = Entry("x/a", std::string(32 << 20, '\0'));
  e.deflate = true;
  const std::string bomb = BuildZip({e});
  ASSERT_LT(bomb.size(), 40000u);
  auto read = [](const std::string& path) -> absl::StatusOr<std::string> {
    auto zip = OpenZip(path);
    if (!zip.ok()) return zip.status();
    return zip->ReadAll(0, 1 << 20);
  };
  ExpectRefused(bomb, read, StatusCode::kResourceExhausted,
                {"x/a", "33554432", "limit is 1048576"});
  // Its CRC-32 is checked in pieces, of which the last 16 MiB are kept.
  auto zip = OpenZip(WriteTestFile(bomb));
  ASSERT_TRUE(zip.ok()) << zip.status();
  const AllocationMeter meter;
  EXPECT_TRUE(zip->CheckCrc(0).ok());
  EXPECT_LT(meter.peak_bytes(), 18 << 20);
}

TEST(ZipReader, Case10_FalseSize) {
  auto check = [](const std::string& path) -> absl::StatusOr<int> {
    auto zip = OpenZip(path);
    if (!zip.ok()) return zip.status();
    return zip->CheckCrc(0);
  };
  ZipEntry e = Entry("x/a", std::string(5000, 'a') + "b");
  e.deflate = true;
  e.bytes = 4000;
  ExpectRefused(BuildZip({e}), check, StatusCode::kResourceExhausted,
                {"x/a", "more than the 4000"});
  e.bytes = 6000;
  ExpectRefused(BuildZip({e}), check, StatusCode::kDataLoss, {"x/a", "5001 bytes, not 6000"});
  e.bytes = uint64_t{1} << 31;
  ExpectRefused(BuildZip({e}), check, StatusCode::kResourceExhausted,
                {"x/a", "2147483648", "1032"});
  e = Entry("x/a", "not deflated at all");
  e.method = 8;
  ExpectRefused(BuildZip({e}), check, StatusCode::kInvalidArgument, {"x/a", "deflate"});
}

TEST(ZipReader, Case11_HugeZip64Offset) {
  for (uint64_t offset : {uint64_t{1} << 63, ~uint64_t{0}, (uint64_t{1} << 63) - 1}) {
    std::vector<ZipEntry> entries = TwoEntries();
    entries[1].zip64 = true;
    entries[1].offset = offset;
    Refused(entries, {}, StatusCode::kInvalidArgument, {"x/two", "offset"});
    entries[1].offset.reset();
    entries[1].stored_bytes = entries[1].bytes = offset;
    Refused(entries, {}, StatusCode::kInvalidArgument, {"x/two", "bytes"});
    ZipTail tail;
    tail.directory_offset = offset;
    Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"directory", "runs past"});
    tail = {};
    tail.end64_offset = offset;
    Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"zip64 end record"});
  }
}

TEST(ZipReader, Case12_HugeEntryCount) {
  ZipTail tail;
  tail.records = uint64_t{1} << 32;
  Refused(TwoEntries(), tail, StatusCode::kResourceExhausted, {"4294967296 zip entries", "limit"});
  tail.records = 1000;
  Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"1000 zip entries do not fit"});
  tail.records = 1;
  Refused(TwoEntries(), tail, StatusCode::kInvalidArgument, {"behind its last entry"});
  tail = {};
  tail.directory_bytes = uint64_t{1} << 40;
  Refused(TwoEntries(), tail, StatusCode::kResourceExhausted, {"directory of 1099511627776"});
}

TEST(ZipReader, Case13_EncryptedSplitOrOddMethod) {
  for (uint16_t flags : {0x809, 0x848, 0x2808, 0x828}) {
    ZipEntry e = Entry("x/a", "data");
    e.flags = flags;
    Refused({e}, {}, StatusCode::kUnimplemented, {"x/a"});
  }
  for (uint16_t method : {1, 9, 12, 14, 93, 95, 99}) {
    ZipEntry e = Entry("x/a", "data");
    e.method = method;
    Refused({e}, {}, StatusCode::kUnimplemented, {"x/a", "method " + std::to_string(method)});
  }
  ZipEntry e = Entry("x/a", "data");
  e.disk = 1;
  Refused({e}, {}, StatusCode::kUnimplemented, {"several disks"});
  ZipTail tail;
  tail.disk = 1;
  Refused(TwoEntries(), tail, StatusCode::kUnimplemented, {"several disks"});
}

TEST(ZipReader, Case14_NamesThatLeaveTheArchive) {
  for (const std::string& name :
       {std::string("../x"), std::string("x/../../y"), std::string("x/.."),
        std::string("/etc/passwd"), std::string("x\\..\\y"), std::string("x/a\0b", 5),
        std::string()}) {
    Refused({Entry(name, "data")}, {}, StatusCode::kInvalidArgument, {"name"});
  }
  Refused({Entry(std::string(5000, 'a'), "")}, {}, StatusCode::kInvalidArgument, {"5000 bytes"});
}

TEST(ZipReader, Case15_ExtraFieldPastItsHeader) {
  for (const std::string& extra :
       {Le(1, 2) + Le(100, 2) + "1234", std::string("FB\xff\xff"), std::string("FB")}) {
    ZipEntry e = Entry("x/a", "data");
    e.central_extra = extra;
    Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "extra field"});
    e = Entry("x/a", "data");
    e.local_extra = extra;
    Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "extra field"});
  }
  ZipEntry e = Entry("x/a", "data");
  e.zip64 = true;
  e.central_extra = Le(1, 2) + Le(8, 2) + Le(4, 8);
  Refused({e}, {}, StatusCode::kInvalidArgument, {"x/a", "zip64 extra field"});
}

TEST(ZipReader, EveryCutAndEveryFlippedByteIsAnErrorOrTheSameContents) {
  std::vector<ZipEntry> entries = {Entry("x/a", "some data"), Entry("x/b", std::string(50, 'b'))};
  entries[1].deflate = true;
  const std::string bytes = BuildZip(entries);
  const std::string path = WriteTestFile(bytes);
  auto contents_or_error = [&](const std::string& damaged) {
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(damaged.data(), damaged.size());
    auto zip = OpenZip(path);
    if (!zip.ok()) {
      EXPECT_FALSE(zip.status().message().empty());
      return;
    }
    for (size_t i = 0; i < zip->records().size(); ++i) {
      auto data = zip->ReadAll(i, 1 << 20);
      if (!data.ok()) continue;
      EXPECT_TRUE(*data == entries[0].data || *data == entries[1].data);
    }
  };
  for (size_t i = 0; i < bytes.size(); ++i) {
    contents_or_error(bytes.substr(0, i));
    for (int bit : {0, 7}) {
      std::string damaged = bytes;
      damaged[i] ^= 1 << bit;
      contents_or_error(damaged);
    }
  }
}

}  // namespace
}  // namespace quire
