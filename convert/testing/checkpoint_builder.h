// Zip archives, pickles and checkpoints as torch writes them, and with any field changed.
#ifndef QUIRE_CONVERT_TESTING_CHECKPOINT_BUILDER_H_
#define QUIRE_CONVERT_TESTING_CHECKPOINT_BUILDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

// Little-endian bytes of a number.
std::string Le(uint64_t value, int bytes);

// One record. What is left empty is said truthfully.
struct ZipEntry {
  std::string name;
  std::string data;
  bool deflate = false;
  bool descriptor = true;  // and zeros in the local header, as torch writes
  bool zip64 = false;      // sizes in a zip64 field, as torch writes beyond 4 GiB

  std::optional<std::string> local_name, local_extra, central_extra;
  std::optional<uint16_t> flags, method, local_method;
  std::optional<uint32_t> crc32, descriptor_crc32, local_crc32;
  std::optional<uint64_t> bytes, stored_bytes, local_bytes, descriptor_bytes, offset;
  uint16_t disk = 0;
};

struct ZipTail {
  std::string before_end, after_end;  // bytes around the end records
  std::string prefix;                 // bytes before the first record, which offsets count
  bool zip64 = true;                  // torch always writes the zip64 end records
  uint16_t disk = 0;
  std::optional<uint64_t> records, directory_bytes, directory_offset, end64_offset;
  std::string comment;
};

std::string BuildZip(absl::Span<const ZipEntry> entries, const ZipTail& tail = {});

// Opcodes, one behind the other.
class Pickler {
 public:
  Pickler& Raw(absl::string_view bytes) {
    out_.append(bytes.data(), bytes.size());
    return *this;
  }
  Pickler& Proto(int version) { return Raw(std::string{'\x80', static_cast<char>(version)}); }
  Pickler& Mark() { return Raw("("); }
  Pickler& Int(int64_t value);
  Pickler& Str(absl::string_view text);
  Pickler& Global(absl::string_view module, absl::string_view name);
  Pickler& Dict() { return Raw("}"); }
  Pickler& Tuple() { return Raw("t"); }  // back to the mark
  Pickler& Reduce() { return Raw("R"); }
  Pickler& SetItem() { return Raw("s"); }
  Pickler& Put(uint32_t index) { return Raw("r" + Le(index, 4)); }
  Pickler& Get(uint32_t index) { return Raw("j" + Le(index, 4)); }
  Pickler& Ints(absl::Span<const int64_t> values);  // a tuple
  // A persistent id: torch.TYPE, key, elements.
  Pickler& Storage(absl::string_view type, absl::string_view key, int64_t elements);
  // _rebuild_tensor_v2 of a storage.
  Pickler& Tensor(absl::string_view type, absl::string_view key, int64_t elements, int64_t offset,
                  absl::Span<const int64_t> shape, absl::Span<const int64_t> strides);
  // The end of _rebuild_tensor_v2's arguments, behind the storage.
  Pickler& View(int64_t offset, absl::Span<const int64_t> shape, absl::Span<const int64_t> strides);
  std::string Stop() const { return out_ + "."; }
  const std::string& bytes() const { return out_; }

 private:
  std::string out_;
};

// Records of a torch checkpoint: data.pkl, byteorder, storages by key, version.
std::vector<ZipEntry> TorchEntries(
    const std::string& pickle, const std::vector<std::pair<std::string, std::string>>& storages);
std::string TorchZipFile(const std::string& pickle,
                         const std::vector<std::pair<std::string, std::string>>& storages = {});

// {name: tensor of float32s, shape [n]} and its storage "0", n elements 0, 1, 2, ...
std::string FloatsPickle(absl::string_view name, int n);
std::string FloatsData(int n);

// The legacy stream: magic, protocol, system info, the object, the keys, and behind that `storages`
// as (elements, bytes).
std::string LegacyFile(const std::string& object, const std::vector<std::string>& keys,
                       const std::vector<std::pair<int64_t, std::string>>& storages);

}  // namespace quire

#endif  // QUIRE_CONVERT_TESTING_CHECKPOINT_BUILDER_H_
