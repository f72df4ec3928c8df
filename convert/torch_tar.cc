#include "convert/torch_tar.h"

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
#include "convert/torch_listing.h"
#include "convert/torch_rebuild.h"
#include "convert/torch_source.h"

namespace quire {
namespace {

using Ref = Pickle::Ref;
using Kind = Pickle::Kind;

// Reads one member: pickles, with raw numbers and bytes between them.
class MemberReader {
 public:
  MemberReader(const File& file, const TarMember& member)
      : file_(file),
        end_(member.offset + member.bytes),
        stream_(file, member.offset, member.offset + member.bytes) {}

  std::string Place() const { return absl::StrCat(file_.path(), ": at offset ", stream_.offset()); }
  absl::Status Malformed(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(Place(), ": ", what));
  }

  absl::StatusOr<Pickle> NextPickle() { return stream_.Next(); }

  // A pickle of a number of things that follow.
  absl::StatusOr<int64_t> NextCount() {
    auto count = stream_.Next();
    if (!count.ok()) return count.status();
    if (!count->IsInt(count->root()) || count->Int(count->root()) < 0 ||
        count->Int(count->root()) > kMaxTorchTensors) {
      return Malformed("no plausible number of tensors or storages");
    }
    return count->Int(count->root());
  }

  // Little-endian integers, raw.
  absl::Status NextInt64s(int64_t n, std::vector<int64_t>* out) {
    std::vector<uint8_t> bytes(8 * n);
    if (auto s = Need(bytes.size()); !s.ok()) return s;
    if (auto s = file_.ReadAt(stream_.offset(), absl::MakeSpan(bytes)); !s.ok()) return s;
    for (int64_t i = 0; i < n; ++i) {
      out->push_back(static_cast<int64_t>(LoadLittleEndian<uint64_t>(&bytes[8 * i])));
    }
    stream_.Skip(8 * n);
    return absl::OkStatus();
  }

  // Passes over bytes; *offset is where they are.
  absl::Status Skip(int64_t bytes, int64_t* offset) {
    if (auto s = Need(bytes); !s.ok()) return s;
    *offset = stream_.offset();
    stream_.Skip(bytes);
    return absl::OkStatus();
  }

 private:
  absl::Status Need(int64_t bytes) const {
    if (bytes <= end_ - stream_.offset()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(Place(), ": the member of the archive ends after ",
                                            end_ - stream_.offset(), " of ", bytes, " bytes"));
  }

  const File& file_;
  const int64_t end_;
  PickleStream stream_;
};

// A storage, or a part of one, by its key.
struct Part {
  int storage = 0;
  int64_t offset_bytes = 0;
  int64_t bytes = 0;
};

class TarLoader {
 public:
  explicit TarLoader(const File& file) : file_(file) {}

  absl::Status ReadStorages(const TarMember& member);
  absl::Status ReadTensors(const TarMember& member);

  const TarTensors& tensors() const { return tensors_; }
  std::vector<TorchStorage> TakeStorages() { return std::move(storages_); }
  std::vector<int64_t> TakeOffsets() { return std::move(offsets_); }

 private:
  // The three items of a tuple at the root.
  static bool Triple(const Pickle& p, Ref r, absl::Span<const Ref>* items) {
    if (!p.IsSequence(r) || p.Items(r).size() != 3) return false;
    *items = p.Items(r);
    return true;
  }

  const File& file_;
  std::vector<TorchStorage> storages_;
  std::vector<int64_t> offsets_;  // of the storages' bytes
  absl::flat_hash_map<int64_t, Part> parts_;
  TarTensors tensors_;
};

absl::Status TarLoader::ReadStorages(const TarMember& member) {
  MemberReader reader(file_, member);
  auto count = reader.NextCount();
  if (!count.ok()) return count.status();
  for (int64_t i = 0; i < *count; ++i) {
    const std::string place = reader.Place();
    auto p = reader.NextPickle();
    if (!p.ok()) return p.status();
    absl::Span<const Ref> items;  // key, location, type
    if (!Triple(*p, p->root(), &items) || !p->IsInt(items[0]) ||
        p->kind(items[2]) != Kind::kGlobal ||
        p->Global(items[2]).role != GlobalRole::kStorageType || !p->Global(items[2]).has_dtype) {
      return reader.Malformed("no (key, location, type) of a storage");
    }
    TorchStorage storage;
    storage.key = absl::StrCat(p->Int(items[0]));
    storage.dtype = p->Global(items[2]).dtype;
    std::vector<int64_t> elements;
    if (auto s = reader.NextInt64s(1, &elements); !s.ok()) return s;
    storage.elements = elements[0];
    if (storage.elements < 0 ||
        __builtin_mul_overflow(storage.elements, int64_t{Info(storage.dtype).block_bytes},
                               &storage.bytes)) {
      return reader.Malformed(absl::StrCat("a storage of ", storage.elements, " elements"));
    }
    int64_t offset;
    if (auto s = reader.Skip(storage.bytes, &offset); !s.ok()) return s;
    const Part whole{static_cast<int>(storages_.size()), 0, storage.bytes};
    if (!parts_.emplace(p->Int(items[0]), whole).second) {
      return reader.Malformed(absl::StrCat("a second storage ", storage.key));
    }
    offsets_.push_back(offset);
    storages_.push_back(std::move(storage));
  }
  // Parts of storages under keys of their own: (key, root's key, offset, elements).
  auto views = reader.NextPickle();
  if (!views.ok()) return views.status();
  if (!views->IsSequence(views->root())) return reader.Malformed("no list of storage views");
  for (Ref view : views->Items(views->root())) {
    if (!views->IsSequence(view) || views->Items(view).size() != 4) {
      return reader.Malformed("a storage view that is not of four numbers");
    }
    int64_t v[4];
    for (int i = 0; i < 4; ++i) {
      const Ref item = views->Items(view)[i];
      if (!views->IsInt(item))
        return reader.Malformed("a storage view that is not of four numbers");
      v[i] = views->Int(item);
    }
    auto root = parts_.find(v[1]);
    if (root == parts_.end())
      return reader.Malformed(absl::StrCat("a view of the unknown storage ", v[1]));
    const TorchStorage& storage = storages_[root->second.storage];
    if (v[2] < 0 || v[3] < 0 || v[2] > storage.elements || v[3] > storage.elements - v[2]) {
      return reader.Malformed(absl::StrCat("a view of elements ", v[2], " to ", v[2], " + ", v[3],
                                           " of a storage of ", storage.elements));
    }
    const int64_t element_bytes = Info(storage.dtype).block_bytes;
    const Part part{root->second.storage, v[2] * element_bytes, v[3] * element_bytes};
    if (!parts_.emplace(v[0], part).second) {
      return reader.Malformed(absl::StrCat("a second storage ", v[0]));
    }
  }
  return absl::OkStatus();
}

absl::Status TarLoader::ReadTensors(const TarMember& member) {
  MemberReader reader(file_, member);
  auto count = reader.NextCount();
  if (!count.ok()) return count.status();
  for (int64_t i = 0; i < *count; ++i) {
    const std::string place = reader.Place();
    auto p = reader.NextPickle();
    if (!p.ok()) return p.status();
    absl::Span<const Ref> items;  // key, storage's key, class
    if (!Triple(*p, p->root(), &items) || !p->IsInt(items[0]) || !p->IsInt(items[1])) {
      return reader.Malformed("no (key, storage, class) of a tensor");
    }
    auto part = parts_.find(p->Int(items[1]));
    if (part == parts_.end()) {
      return absl::NotFoundError(absl::StrCat(place, ": no storage ", p->Int(items[1])));
    }
    std::vector<int64_t> rank, offset;
    RebuiltTensor tensor;
    StridedView& view = tensor.view.view;
    if (auto s = reader.NextInt64s(1, &rank); !s.ok()) return s;
    rank[0] &= 0xffffffff;  // four bytes, and four of padding
    if (rank[0] > kMaxTensorRank) {
      return reader.Malformed(
          absl::StrCat("a tensor of ", rank[0], " dimensions; the limit is ", kMaxTensorRank));
    }
    if (auto s = reader.NextInt64s(rank[0], &view.shape); !s.ok()) return s;
    if (auto s = reader.NextInt64s(rank[0], &view.strides); !s.ok()) return s;
    if (auto s = reader.NextInt64s(1, &offset); !s.ok()) return s;
    tensor.dtype = storages_[part->second.storage].dtype;
    tensor.view.storage = part->second.storage;
    view.element_bytes = Info(tensor.dtype).block_bytes;
    if (auto s = PlaceView(offset[0], part->second.offset_bytes, part->second.bytes, place, &view);
        !s.ok()) {
      return s;
    }
    if (!tensors_.emplace(p->Int(items[0]), std::move(tensor)).second) {
      return reader.Malformed(absl::StrCat("a second tensor ", p->Int(items[0])));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTorchTar(File file) {
  auto members = ReadTar(file);
  if (!members.ok()) return members.status();
  auto find = [&](absl::string_view name) -> absl::StatusOr<TarMember> {
    for (const TarMember& member : *members) {
      if (member.name == name) return member;
    }
    return absl::NotFoundError(absl::StrCat(file.path(), ": a tar archive without ", Quote(name),
                                            ": not what torch.save wrote before 0.2; if it "
                                            "holds a checkpoint, unpack it first"));
  };
  auto storages = find("storages"), tensors = find("tensors"), object = find("pickle");
  for (const auto* member : {&storages, &tensors, &object}) {
    if (!member->ok()) return member->status();
  }
  TarLoader loader(file);
  if (auto s = loader.ReadStorages(*storages); !s.ok()) return s;
  if (auto s = loader.ReadTensors(*tensors); !s.ok()) return s;
  auto pickle = PickleStream(file, object->offset, object->offset + object->bytes).Next();
  if (!pickle.ok()) return pickle.status();
  auto listing = ListTorchTensors(*pickle, file.path(), &loader.tensors());
  if (!listing.ok()) return listing.status();
  listing->storages = loader.TakeStorages();
  return std::make_unique<TorchStream>("torch-tar", std::move(file), *std::move(listing),
                                       loader.TakeOffsets());
}

}  // namespace quire
