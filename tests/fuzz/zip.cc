// Zip archives: the directory, and every record read in two ways.
#include <algorithm>
#include <string>
#include <vector>

#include "convert/zip_reader.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  auto file = File::Open(FuzzFile(data, size));
  FuzzCheck(file.ok(), "the input can be opened");
  auto zip = ZipReader::Open(*std::move(file));
  if (!zip.ok()) {
    FuzzCheck(!zip.status().message().empty(), "a refusal says why");
    return 0;
  }
  int64_t end = 0;
  for (size_t i = 0; i < zip->records().size(); ++i) {
    const int index = static_cast<int>(i);
    const ZipRecord& record = zip->records()[i];
    FuzzCheck(record.header_offset >= end, "records do not overlap");
    FuzzCheck(record.data_offset > record.header_offset, "data are behind their header");
    end = record.data_offset + record.stored_bytes;
    FuzzCheck(record.stored_bytes >= 0 && end <= static_cast<int64_t>(size),
              "data are in the file");
    FuzzCheck(record.bytes <= kMaxDeflateRatio * (record.stored_bytes + 1), "sizes are possible");
    FuzzCheck(zip->Find(record.name) == index, "a record is found by its name");
    const auto whole = zip->ReadAll(index, 1 << 20);
    if (!whole.ok()) continue;
    FuzzCheck(zip->CheckCrc(index).ok(), "what was read has the right CRC-32");
    const size_t half = whole->size() / 2;
    std::string tail(whole->size() - half, '\0');
    const auto out = absl::MakeSpan(reinterpret_cast<uint8_t*>(&tail[0]), tail.size());
    FuzzCheck(zip->ReadAt(index, static_cast<int64_t>(half), out).ok(), "a range can be read");
    FuzzCheck(whole->compare(half, std::string::npos, tail) == 0, "ranges are those of the whole");
  }
  return 0;
}
