#include "tests/fuzz/mutators.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "convert/pickle_opcodes.h"
#include "convert/testing/checkpoint_builder.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace quire {
namespace {

uint64_t LoadLe(const std::string& bytes, size_t at, size_t n) {
  uint64_t value = 0;
  for (size_t i = 0; i < n && at + i < bytes.size(); ++i) {
    value |= uint64_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  }
  return value;
}

// What follows an opcode: lines, or a number of bytes, or a length and as many bytes.
struct Argument {
  int lines = 0, bytes = 0, length_bytes = 0;
};

Argument ArgumentOf(uint8_t opcode) {
  switch (opcode) {
    case op::kFloat:
    case op::kInt:
    case op::kLong:
    case op::kPersid:
    case op::kString:
    case op::kUnicode:
    case op::kGet:
    case op::kPut:
      return {1, 0, 0};
    case op::kGlobal:
    case op::kInst:
      return {2, 0, 0};
    case op::kBinInt1:
    case op::kBinGet:
    case op::kBinPut:
    case op::kProto:
    case op::kExt1:
      return {0, 1, 0};
    case op::kBinInt2:
    case op::kExt2:
      return {0, 2, 0};
    case op::kBinInt:
    case op::kLongBinGet:
    case op::kLongBinPut:
    case op::kExt4:
      return {0, 4, 0};
    case op::kBinFloat:
    case op::kFrame:
      return {0, 8, 0};
    case op::kShortBinString:
    case op::kShortBinBytes:
    case op::kShortBinUnicode:
    case op::kLong1:
      return {0, 0, 1};
    case op::kBinString:
    case op::kBinUnicode:
    case op::kBinBytes:
    case op::kLong4:
      return {0, 0, 4};
    case op::kBinUnicode8:
    case op::kBinBytes8:
    case op::kByteArray8:
      return {0, 0, 8};
    default:
      return {};
  }
}

std::vector<std::string> SplitPickle(const std::string& bytes) {
  std::vector<std::string> out;
  size_t at = 0;
  while (at < bytes.size()) {
    const Argument argument = ArgumentOf(static_cast<uint8_t>(bytes[at]));
    size_t end = at + 1 + argument.bytes;
    if (argument.length_bytes > 0) {
      const uint64_t length = LoadLe(bytes, end, argument.length_bytes);
      end = length > bytes.size() ? bytes.size() : end + argument.length_bytes + length;
    }
    for (int line = 0; line < argument.lines && end < bytes.size(); ++line) {
      end = std::min(bytes.find('\n', end), bytes.size() - 1) + 1;
    }
    end = std::min(end, bytes.size());
    out.push_back(bytes.substr(at, end - at));
    at = end;
  }
  return out;
}

std::string Join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += part;
  return out;
}

// The opcode with another argument, whose length is said truthfully.
std::string MutateArgument(const std::string& part) {
  const Argument argument = ArgumentOf(static_cast<uint8_t>(part[0]));
  const size_t head = std::min<size_t>(part.size(), 1 + argument.length_bytes);
  std::string content = MutateBytes(part.substr(head), part.size() - head + 16);
  if (argument.length_bytes == 1) content.resize(std::min<size_t>(content.size(), 255));
  return part.substr(0, 1) +
         (argument.length_bytes > 0 ? Le(content.size(), argument.length_bytes) : "") + content;
}

std::string AnyOpcode(Random& random) {
  static const char kGlobals[][48] = {"ctorch._utils\n_rebuild_tensor_v2\n",
                                      "ctorch._utils\n_rebuild_parameter\n",
                                      "ctorch\nFloatStorage\n",
                                      "ctorch._tensor\n_rebuild_from_type_v2\n",
                                      "ccollections\nOrderedDict\n",
                                      "ctorch\nSize\n",
                                      "cbuiltins\nset\n",
                                      "c_codecs\nencode\n"};
  if (random() % 4 == 0) return kGlobals[Below(8, random)];
  const char opcode = static_cast<char>(random());
  const Argument argument = ArgumentOf(static_cast<uint8_t>(opcode));
  std::string out(1, opcode);
  for (int i = 0; i < argument.bytes; ++i) out.push_back(static_cast<char>(i == 0 ? random() : 0));
  for (int i = 0; i < argument.lines; ++i) out += "1\n";
  return out + std::string(argument.length_bytes, '\0');
}

// The archive's records, as its directory lists them; what cannot be followed is left out.
std::vector<ZipEntry> SplitZip(const std::string& zip) {
  std::vector<ZipEntry> entries;
  for (size_t at = zip.find("PK\1\2"); at != std::string::npos; at = zip.find("PK\1\2", at + 4)) {
    const auto field = [&](size_t offset, size_t n) { return LoadLe(zip, at + offset, n); };
    const size_t local = field(42, 4);
    if (local >= zip.size()) continue;
    const size_t begin = local + 30 + LoadLe(zip, local + 26, 2) + LoadLe(zip, local + 28, 2);
    if (begin >= zip.size() || at + 46 > zip.size()) continue;
    ZipEntry entry;
    entry.name = zip.substr(at + 46, field(28, 2));
    entry.data = zip.substr(begin, field(20, 4));
    entry.descriptor = (field(8, 2) & 8) != 0;
    entry.deflate = field(10, 2) == 8;
    if (entry.deflate) {
      std::string out(1 << 16, '\0');
      z_stream stream = {};
      inflateInit2(&stream, -MAX_WBITS);
      stream.next_in = reinterpret_cast<Bytef*>(entry.data.data());
      stream.avail_in = static_cast<uInt>(entry.data.size());
      stream.next_out = reinterpret_cast<Bytef*>(out.data());
      stream.avail_out = static_cast<uInt>(out.size());
      inflate(&stream, Z_FINISH);
      out.resize(stream.total_out);
      inflateEnd(&stream);
      entry.data = out;
    }
    entries.push_back(std::move(entry));
    if (entries.size() == 64) break;
  }
  return entries;
}

void LieAbout(ZipEntry& entry, Random& random) {
  const uint64_t number = random() % 2 == 0 ? random() % 100 : uint64_t{1} << (random() % 64);
  switch (random() % 10) {
    case 0:
      entry.crc32 = static_cast<uint32_t>(number);
      break;
    case 1:
      entry.bytes = number;
      break;
    case 2:
      entry.stored_bytes = number;
      break;
    case 3:
      entry.offset = number;
      break;
    case 4:
      entry.method = static_cast<uint16_t>(number);
      break;
    case 5:
      entry.flags = static_cast<uint16_t>(number);
      break;
    case 6:
      entry.descriptor_bytes = number;
      break;
    case 7:
      entry.local_extra = MutateBytes("FB" + Le(2, 2) + "ZZ", 64);
      break;
    case 8:
      entry.central_extra =
          MutateBytes(Le(1, 2) + Le(24, 2) + Le(entry.data.size(), 8) + Le(0, 16), 64);
      break;
    default:
      entry.local_name = MutateBytes(entry.name, 64);
  }
}

}  // namespace

std::string MutateBytes(std::string bytes, size_t max_bytes) {
  const size_t size = bytes.size();
  bytes.resize(std::max<size_t>({max_bytes, size, 1}));
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes.data()), size, bytes.size()));
  return bytes;
}

std::string MutatePickle(const std::string& pickle, size_t max_bytes, Random& random) {
  std::vector<std::string> parts = SplitPickle(pickle);
  if (parts.empty()) return MutateBytes(pickle, max_bytes);
  for (size_t times = 1 + random() % 3; times > 0 && !parts.empty(); --times) {
    const size_t at = Below(parts.size(), random);
    const size_t run = 1 + Below(std::min<size_t>(parts.size() - at, 8), random);
    const auto here = parts.begin() + static_cast<ptrdiff_t>(at);
    const size_t to = Below(parts.size(), random);
    switch (random() % 6) {
      case 0:
        parts.erase(here, here + static_cast<ptrdiff_t>(std::min(run, parts.size() - at)));
        break;
      case 1: {
        const std::vector<std::string> copy(
            here, here + static_cast<ptrdiff_t>(std::min(run, parts.size() - at)));
        parts.insert(parts.begin() + static_cast<ptrdiff_t>(to), copy.begin(), copy.end());
        break;
      }
      case 2:
        std::swap(parts[at], parts[to]);
        break;
      case 3:
        parts.insert(here, AnyOpcode(random));
        break;
      default:
        parts[at] = MutateArgument(parts[at]);
    }
  }
  return Join(parts);
}

std::string SplicePickles(const std::string& a, const std::string& b, Random& random) {
  std::vector<std::string> out = SplitPickle(a);
  const std::vector<std::string> other = SplitPickle(b);
  if (other.empty()) return a;
  const size_t from = Below(other.size(), random);
  const size_t run = 1 + Below(std::min<size_t>(other.size() - from, 64), random);
  const auto begin = other.begin() + static_cast<ptrdiff_t>(from);
  out.insert(out.begin() + static_cast<ptrdiff_t>(Below(out.size(), random)), begin,
             begin + static_cast<ptrdiff_t>(std::min(run, other.size() - from)));
  return Join(out);
}

std::string MutateZip(const std::string& zip, size_t max_bytes, Random& random) {
  std::vector<ZipEntry> entries = SplitZip(zip);
  if (entries.empty() || random() % 4 == 0) return MutateBytes(zip, max_bytes);
  ZipTail tail;
  ZipEntry& entry = entries[Below(entries.size(), random)];
  switch (random() % 10) {
    case 0:
      entry.name = MutateBytes(entry.name, entry.name.size() + 8);
      break;
    case 1:
      entry.deflate = !entry.deflate;
      entry.zip64 = random() % 2 == 0;
      entry.descriptor = random() % 2 == 0;
      break;
    case 2:
      LieAbout(entry, random);
      break;
    case 3:
      tail.records = random() % 8;
      tail.zip64 = random() % 2 == 0;
      break;
    case 4:
      if (random() % 2 == 0) {
        entries.push_back(ZipEntry(entry));
      } else {
        std::swap(entry, entries[Below(entries.size(), random)]);
      }
      break;
    default:
      entry.data = absl::EndsWith(entry.name, "data.pkl") && random() % 4 != 0
                       ? MutatePickle(entry.data, entry.data.size() + 256, random)
                       : MutateBytes(entry.data, entry.data.size() + 64);
  }
  return BuildZip(entries, tail);
}

std::string MutateTar(const std::string& tar, size_t max_bytes) {
  std::string out = MutateBytes(tar, max_bytes);
  constexpr size_t kBlock = 512, kSum = 148;
  for (size_t at = 0; at + kBlock <= out.size(); at += kBlock) {
    if (out.compare(at + 257, 5, "ustar") != 0) continue;
    std::fill_n(out.begin() + static_cast<ptrdiff_t>(at + kSum), 8, ' ');
    unsigned sum = 0;
    for (size_t i = 0; i < kBlock; ++i) sum += static_cast<uint8_t>(out[at + i]);
    char text[16];
    const int n = std::snprintf(text, sizeof text, "%06o", sum);
    out.replace(at + kSum, static_cast<size_t>(n), text);
    out[at + kSum + 6] = '\0';
  }
  return out;
}

size_t StoreMutant(const std::string& mutant, uint8_t* data, size_t max_bytes) {
  const size_t size = std::min(mutant.size(), max_bytes);
  std::memcpy(data, mutant.data(), size);
  return size;
}

}  // namespace quire
