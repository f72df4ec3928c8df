// What torch.save has written since 1.6: a zip archive with data.pkl and one record for each
// storage.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "convert/pickle_vm.h"
#include "convert/quote.h"
#include "convert/tensor_source.h"
#include "convert/torch_listing.h"
#include "convert/torch_source.h"
#include "convert/zip_reader.h"
#include "format/file.h"

namespace quire {
namespace {

// Versions of torch's archive layout that differ in nothing that is read here.
constexpr int kMaxArchiveVersion = 10;

class TorchZip : public TorchSource {
 public:
  TorchZip(ZipReader zip, TorchListing listing, std::vector<int> records)
      : TorchSource(std::move(listing)),
        zip_(std::move(zip)),
        records_(std::move(records)),
        verified_(std::make_unique<std::atomic<bool>[]>(records_.size())) {}

  absl::string_view container() const override { return "torch-zip"; }

  absl::Status Verify(int index) const override {
    const int storage = listing().views[index].storage;
    if (verified_[storage]) return absl::OkStatus();
    absl::Status s = zip_.CheckCrc(records_[storage]);
    if (s.ok()) verified_[storage] = true;
    return s;
  }

  std::vector<std::pair<std::string, int64_t>> files() const override {
    const std::string& path = zip_.file().path();
    return {{path.substr(path.rfind('/') + 1), zip_.file().size()}};
  }

 protected:
  absl::Status ReadStorage(int storage, int64_t offset, absl::Span<uint8_t> out) const override {
    return zip_.ReadAt(records_[storage], offset, out);
  }

 private:
  ZipReader zip_;
  std::vector<int> records_;  // of the zip, one for each storage
  std::unique_ptr<std::atomic<bool>[]> verified_;
};

// What an archive is that torch.save did not write.
std::string DescribeArchive(const ZipReader& zip) {
  const auto any = [&](auto matches) {
    return std::any_of(zip.records().begin(), zip.records().end(),
                       [&](const ZipRecord& record) { return matches(record.name); });
  };
  const auto any_ends = [&](absl::string_view end) {
    return any([&](absl::string_view name) { return absl::EndsWith(name, end); });
  };
  if (any_ends("/archive_format") || any_ends("serialized_exported_program.json"))
    return "a program of torch.export (.pt2); save the module's state_dict() instead";
  if (any_ends(".data/extern_modules"))
    return "a package of torch.package; save the module's state_dict() instead";
  if (any_ends("/model.json"))
    return "a TorchScript archive of torch before 1.4; save the module's state_dict() instead";
  if (any_ends(".npy")) return "an archive of NumPy arrays (.npz)";
  if (any_ends(".weights.h5")) return "a Keras model";
  for (const char* inner : {".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".gguf"}) {
    if (any_ends(inner)) return absl::StrCat("an archive that holds ", inner, " files; unpack it");
  }
  return absl::StrCat("a zip archive of ", zip.records().size(), " records");
}

// The folder inside the archive that holds data.pkl, with its slash.
absl::StatusOr<std::string> FindRoot(const ZipReader& zip) {
  const std::string& path = zip.file().path();
  std::string root;
  for (const ZipRecord& record : zip.records()) {
    const size_t slash = record.name.find('/');
    if (slash == std::string::npos ||
        record.name.compare(slash, std::string::npos, "/data.pkl") != 0) {
      continue;
    }
    if (!root.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": two checkpoints in one archive, ",
                                                     Quote(root), " and ", Quote(record.name)));
    }
    root = record.name.substr(0, slash + 1);
  }
  if (root.empty()) {
    return absl::NotFoundError(
        absl::StrCat(path, ": ", DescribeArchive(zip),
                     "; without NAME/data.pkl it is not what torch.save writes"));
  }
  return root;
}

absl::Status CheckVersion(const ZipReader& zip, const std::string& root) {
  const std::string place =
      absl::StrCat(zip.file().path(), ": zip record ", Quote(root + "version"));
  const int record = zip.Find(root + "version");
  if (record < 0) return absl::InvalidArgumentError(absl::StrCat(place, " is missing"));
  auto text = zip.ReadAll(record, 16);
  if (!text.ok()) return text.status();
  int version;
  if (!absl::SimpleAtoi(*text, &version) || version < 1) {
    return absl::InvalidArgumentError(absl::StrCat(place, " is ", Quote(*text), ", no version"));
  }
  if (version > kMaxArchiveVersion) {
    return absl::UnimplementedError(
        absl::StrCat(place, " is ", version, "; versions up to ", kMaxArchiveVersion, " are read"));
  }
  return absl::OkStatus();
}

absl::Status CheckByteOrder(const ZipReader& zip, const std::string& root) {
  const int record = zip.Find(root + "byteorder");
  if (record < 0) return absl::OkStatus();  // before 2.1; little-endian
  auto text = zip.ReadAll(record, 16);
  if (!text.ok()) return text.status();
  const std::string place =
      absl::StrCat(zip.file().path(), ": zip record ", Quote(root + "byteorder"));
  if (*text == "little") return absl::OkStatus();
  if (*text == "big") {
    return absl::UnimplementedError(absl::StrCat(place, ": a big-endian checkpoint"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(place, " is ", Quote(*text), ", not 'little' or 'big'"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTorchZip(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<ZipReader> zip = ZipReader::Open(*std::move(file));
  if (!zip.ok()) return zip.status();
  absl::StatusOr<std::string> root = FindRoot(*zip);
  if (!root.ok()) return root.status();
  if (zip->Find(*root + "constants.pkl") >= 0) {
    return absl::UnimplementedError(absl::StrCat(
        path,
        ": a TorchScript archive (it has constants.pkl); save the module's state_dict() instead"));
  }
  if (auto s = CheckVersion(*zip, *root); !s.ok()) return s;
  if (auto s = CheckByteOrder(*zip, *root); !s.ok()) return s;

  const std::string pickle_name = *root + "data.pkl";
  const std::string place = absl::StrCat(path, ": zip record ", Quote(pickle_name));
  absl::StatusOr<TorchListing> listing;
  {
    auto bytes = zip->ReadAll(zip->Find(pickle_name), kMaxPickleBytes);
    if (!bytes.ok()) return bytes.status();
    auto pickle = ParsePickle(*bytes, place);
    if (!pickle.ok()) return pickle.status();
    if (pickle->consumed_bytes() != static_cast<int64_t>(bytes->size())) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": ",
                                                     bytes->size() - pickle->consumed_bytes(),
                                                     " bytes behind the pickle's STOP"));
    }
    listing = ListTorchTensors(*pickle, path);
    if (!listing.ok()) return listing.status();
  }

  std::vector<int> records;
  for (const TorchStorage& storage : listing->storages) {
    const std::string name = absl::StrCat(*root, "data/", storage.key);
    const int record = zip->Find(name);
    if (record < 0)
      return absl::NotFoundError(absl::StrCat(path, ": zip record ", Quote(name), " is missing"));
    const int64_t bytes = zip->records()[record].bytes;
    if (bytes != storage.bytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": zip record ", Quote(name), " has ",
                                                     bytes, " bytes, data.pkl says ",
                                                     storage.bytes));
    }
    records.push_back(record);
  }
  return std::make_unique<TorchZip>(*std::move(zip), *std::move(listing), std::move(records));
}

}  // namespace quire
