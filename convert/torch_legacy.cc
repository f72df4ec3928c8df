// What torch.save wrote before 1.6: five pickles and then the storages, one behind the other.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "convert/little_endian.h"
#include "convert/pickle_stream.h"
#include "convert/pickle_vm.h"
#include "convert/quote.h"
#include "convert/tar_reader.h"
#include "convert/tensor_source.h"
#include "convert/torch_listing.h"
#include "convert/torch_source.h"
#include "convert/torch_tar.h"
#include "format/file.h"

namespace quire {
namespace {

using Ref = Pickle::Ref;
using Kind = Pickle::Kind;

// 0x1950a86a20f9469cfc6c, as protocols 2 and up and as 0 and 1 spell it.
constexpr absl::string_view kMagicNumber = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr absl::string_view kMagicDigits = "119547037146038801333356";
constexpr int64_t kProtocolVersion = 1001;

absl::Status CheckSystemInfo(const Pickle& info, const std::string& path) {
  if (info.kind(info.root()) == Kind::kDict) {
    const auto items = info.Items(info.root());
    for (size_t i = 0; i < items.size(); i += 2) {
      if (!info.IsString(items[i]) || info.Text(items[i]) != "little_endian") continue;
      if (info.kind(items[i + 1]) != Kind::kBool) break;
      if (info.Bool(items[i + 1])) return absl::OkStatus();
      return absl::UnimplementedError(absl::StrCat(path, ": a big-endian checkpoint"));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": its third pickle does not say 'little_endian'"));
}

// Where each storage's bytes are: in the order of the keys, each behind its number of elements.
absl::StatusOr<std::vector<int64_t>> LocateStorages(const File& file, int64_t offset,
                                                    const Pickle& keys,
                                                    const std::vector<TorchStorage>& storages) {
  const std::string& path = file.path();
  if (!keys.IsSequence(keys.root())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": its fifth pickle is no list of storage keys"));
  }
  absl::flat_hash_map<absl::string_view, int> by_key;
  for (size_t i = 0; i < storages.size(); ++i) by_key.emplace(storages[i].key, i);
  std::vector<int64_t> offsets(storages.size(), -1);
  for (Ref key : keys.Items(keys.root())) {
    const std::string name = keys.IsString(key) ? std::string(keys.Text(key))
                             : keys.IsInt(key)  ? absl::StrCat(keys.Int(key))
                                                : "";
    const std::string place = absl::StrCat(path, ": storage ", Quote(name), " at offset ", offset);
    auto it = by_key.find(name);
    if (it == by_key.end())
      return absl::InvalidArgumentError(absl::StrCat(place, ": no tensor mentions it"));
    const TorchStorage& storage = storages[it->second];
    if (offsets[it->second] >= 0) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": listed twice"));
    }
    uint8_t count[8];
    if (file.size() - offset < 8) {
      return absl::DataLossError(
          absl::StrCat(place, ": the file ends before it, at ", file.size()));
    }
    if (auto s = file.ReadAt(offset, absl::MakeSpan(count)); !s.ok()) return s;
    const auto elements = static_cast<int64_t>(LoadLittleEndian<uint64_t>(count));
    if (elements != storage.elements) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": ", elements, " elements here, ",
                                                     storage.elements,
                                                     " where a tensor mentions it"));
    }
    offset += 8;
    if (storage.bytes > file.size() - offset) {
      return absl::DataLossError(absl::StrCat(place, ": the file ends inside of it, at ",
                                              file.size(), "; ", storage.bytes,
                                              " bytes should follow ", offset));
    }
    offsets[it->second] = offset;
    offset += storage.bytes;
  }
  if (offset != file.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", file.size() - offset, " trailing bytes behind the last storage"));
  }
  for (size_t i = 0; i < storages.size(); ++i) {
    if (offsets[i] >= 0) continue;
    return absl::NotFoundError(absl::StrCat(path, ": storage ", Quote(storages[i].key),
                                            " is not among the keys of those that follow"));
  }
  return offsets;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTorchLegacy(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  if (IsTar(*file)) return OpenTorchTar(*std::move(file));
  PickleStream stream(*file, 0, file->size());

  absl::StatusOr<Pickle> magic = stream.Next();
  if (!magic.ok()) return magic.status();
  if (magic->kind(magic->root()) != Kind::kLong ||
      (magic->Text(magic->root()) != kMagicNumber && magic->Text(magic->root()) != kMagicDigits)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": a pickle, not a checkpoint of torch.save: it does not begin with the magic number"));
  }
  absl::StatusOr<Pickle> protocol = stream.Next();
  if (!protocol.ok()) return protocol.status();
  if (!protocol->IsInt(protocol->root()) || protocol->Int(protocol->root()) != kProtocolVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": its protocol version is not ", kProtocolVersion));
  }
  absl::StatusOr<Pickle> info = stream.Next();
  if (!info.ok()) return info.status();
  if (auto s = CheckSystemInfo(*info, path); !s.ok()) return s;

  absl::StatusOr<TorchListing> listing;
  {
    absl::StatusOr<Pickle> pickle = stream.Next();
    if (!pickle.ok()) return pickle.status();
    listing = ListTorchTensors(*pickle, path);
    if (!listing.ok()) return listing.status();
  }
  absl::StatusOr<Pickle> keys = stream.Next();
  if (!keys.ok()) return keys.status();
  auto offsets = LocateStorages(*file, stream.offset(), *keys, listing->storages);
  if (!offsets.ok()) return offsets.status();
  return std::make_unique<TorchStream>("torch-legacy", *std::move(file), *std::move(listing),
                                       *std::move(offsets));
}

}  // namespace quire
