#include "convert/torch_rebuild.h"

#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "convert/quote.h"

namespace quire {
namespace {

using Ref = Pickle::Ref;
using Kind = Pickle::Kind;

absl::Status Invalid(const std::string& place, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", what));
}

constexpr size_t kMaxStorageKeyBytes = 256;

bool IsKey(const Pickle& p, Ref r) { return p.IsString(r) || p.IsInt(r); }
std::string KeyText(const Pickle& p, Ref r) {
  return p.IsString(r) ? std::string(p.Text(r)) : absl::StrCat(p.Int(r));
}

}  // namespace

absl::Status PlaceView(int64_t offset, int64_t begin_bytes, int64_t storage_bytes,
                       const std::string& place, StridedView* out) {
  StridedView& view = *out;
  if (view.shape.size() != view.strides.size()) {
    return Invalid(
        place, absl::StrCat(view.shape.size(), " dimensions, ", view.strides.size(), " strides"));
  }
  for (const auto* numbers : {&view.shape, &view.strides}) {
    for (int64_t n : *numbers) {
      if (n < 0) return Invalid(place, absl::StrCat("a size or stride of ", n));
    }
  }
  if (offset < 0 ||
      __builtin_mul_overflow(offset, int64_t{view.element_bytes}, &view.offset_bytes)) {
    return Invalid(place, absl::StrCat("its storage offset is ", offset));
  }
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  int64_t bytes = view.element_bytes;  // of the dimensions that are not 0
  bool empty = false;
  for (int64_t d : view.shape) {
    if (d == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bytes, d, &bytes)) {
      return Invalid(place, "the product of its dimensions overflows");
    }
  }
  if (empty) {
    view.offset_bytes = begin_bytes;  // of no element
    return absl::OkStatus();
  }
  int64_t last = 0;  // element with the largest coordinates, relative to the first
  for (size_t d = 0; d < view.shape.size(); ++d) {
    int64_t reach;
    if (__builtin_mul_overflow(view.shape[d] - 1, view.strides[d], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return Invalid(place, "its strides overflow");
    }
  }
  int64_t need = kMax;
  if (last == kMax || __builtin_mul_overflow(last + 1, int64_t{view.element_bytes}, &need) ||
      __builtin_add_overflow(need, view.offset_bytes, &need)) {
    return Invalid(place, "its strides overflow");
  }
  if (need > storage_bytes) {
    return Invalid(
        place, absl::StrCat("needs ", need, " bytes of its storage, which has ", storage_bytes));
  }
  if (bytes > storage_bytes && bytes - storage_bytes > kMaxRepeatedBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(place, ": a view of ", bytes, " bytes that repeats a storage of ",
                     storage_bytes, "; up to ", kMaxRepeatedBytes, " bytes may be repeated"));
  }
  view.offset_bytes += begin_bytes;
  return absl::OkStatus();
}

bool TorchRebuilder::IsTensor(Ref r) const {
  if (tar_ != nullptr && p_.kind(r) == Kind::kPersistent && p_.IsInt(p_.Content(r))) {
    return tar_->contains(p_.Int(p_.Content(r)));
  }
  if (p_.kind(r) != Kind::kObject) return false;
  switch (p_.Global(r).role) {
    case GlobalRole::kRebuildTensor:
    case GlobalRole::kRebuildTensorV3:
    case GlobalRole::kRebuildParameter:
    case GlobalRole::kRebuildFromType:
    case GlobalRole::kUnsupportedTensor:
      return true;
    default:
      return false;
  }
}

absl::Status TorchRebuilder::NoteStorages(const std::string& place) {
  int64_t ids = 0;
  for (Ref r = 0; r < p_.size(); ++r) {
    if (p_.kind(r) != Kind::kPersistent) continue;
    ++ids;
    if (tar_ != nullptr && p_.IsInt(p_.Content(r))) continue;
    auto storage = FindStorage(r, absl::StrCat(place, ": persistent id ", ids));
    if (!storage.ok()) return storage.status();
  }
  return absl::OkStatus();
}

absl::StatusOr<RebuiltTensor> TorchRebuilder::Rebuild(Ref r, const std::string& place) {
  // Parameters wrap tensors; the depth of a pickle is limited.
  while (p_.kind(r) == Kind::kObject && p_.Global(r).role == GlobalRole::kRebuildParameter) {
    const auto args = p_.Items(p_.Content(r));
    if (args.empty() || !IsTensor(args[0]))
      return Invalid(place, "a Parameter of what is not a tensor");
    r = args[0];
  }
  if (p_.kind(r) == Kind::kPersistent) return tar_->at(p_.Int(p_.Content(r)));
  return Call(p_.Global(r), p_.Content(r), place);
}

absl::StatusOr<RebuiltTensor> TorchRebuilder::Call(const PickleGlobal& function, Ref arguments,
                                                   const std::string& place) {
  const auto args = p_.Items(arguments);
  switch (function.role) {
    case GlobalRole::kRebuildTensor:
    case GlobalRole::kRebuildTensorV3:
      return FromStorage(function, args, place);
    case GlobalRole::kRebuildParameter:
      if (args.empty() || !IsTensor(args[0])) break;
      return Rebuild(args[0], place);
    case GlobalRole::kRebuildFromType: {
      if (args.size() != 4 || p_.kind(args[0]) != Kind::kGlobal ||
          p_.kind(args[1]) != Kind::kGlobal || p_.kind(args[2]) != Kind::kTuple) {
        break;
      }
      // Neither the class nor attributes matter, except that another class could mean anything.
      const GlobalRole made = p_.Global(args[1]).role;
      if (made != GlobalRole::kTensorClass && made != GlobalRole::kRebuildParameter) break;
      return Call(p_.Global(args[0]), args[2], place);
    }
    case GlobalRole::kUnsupportedTensor:
      return absl::UnimplementedError(absl::StrCat(place, ": ", function.note,
                                                   " tensors are not supported (", function.module,
                                                   ".", function.name, ")"));
    default:
      break;
  }
  return Invalid(place, absl::StrCat("a call of ", function.module, ".", function.name,
                                     " with unexpected arguments"));
}

absl::Status TorchRebuilder::ReadIntegers(Ref r, absl::string_view what, const std::string& place,
                                          std::vector<int64_t>* out) const {
  // Nor a list, which may have changed since the call.
  if (p_.kind(r) != Kind::kTuple) {
    return Invalid(place, absl::StrCat("its ", what, " is not a tuple"));
  }
  const auto items = p_.Items(r);
  if (items.size() > kMaxTensorRank) {
    return Invalid(place, absl::StrCat("its ", what, " has ", items.size(),
                                       " dimensions; the limit is ", kMaxTensorRank));
  }
  for (Ref item : items) {
    if (!p_.IsInt(item))
      return Invalid(place, absl::StrCat("its ", what, " holds what is not an integer"));
    out->push_back(p_.Int(item));
  }
  return absl::OkStatus();
}

absl::StatusOr<RebuiltTensor> TorchRebuilder::FromStorage(const PickleGlobal& function,
                                                          absl::Span<const Ref> args,
                                                          const std::string& place) {
  const bool v3 = function.role == GlobalRole::kRebuildTensorV3;
  // v1 has the four that make the view; v2 adds two and, maybe, metadata; v3 a dtype before that.
  const size_t metadata_at = v3 ? 7 : 6;
  if (args.size() > metadata_at + 1 ||
      (v3 ? args.size() < 7 : args.size() != 4 && args.size() < 6)) {
    return Invalid(place, absl::StrCat(function.name, " called with ", args.size(), " arguments"));
  }
  auto storage = FindStorage(args[0], place);
  if (!storage.ok()) return storage.status();
  const TorchStorage& bytes = storages_[storage->storage];

  if (args.size() > metadata_at && p_.kind(args[metadata_at]) != Kind::kNone) {
    if (p_.kind(args[metadata_at]) != Kind::kDict)
      return Invalid(place, "its metadata are not a dict");
    const auto items = p_.Items(args[metadata_at]);
    for (size_t i = 0; i < items.size(); i += 2) {
      const bool off = p_.kind(items[i + 1]) == Kind::kBool && !p_.Bool(items[i + 1]);
      if (off) continue;
      return absl::UnimplementedError(
          absl::StrCat(place, ": a tensor with the metadata ",
                       p_.IsString(items[i]) ? Quote(p_.Text(items[i])) : "(unnamed)",
                       " (conj and neg: its values are not the bytes that are stored); save a "
                       "copy, .resolve_conj()"
                       " or .resolve_neg()"));
    }
  }

  RebuiltTensor tensor;
  const char* unsupported = bytes.unsupported;
  if (v3) {
    if (p_.kind(args[6]) != Kind::kGlobal || p_.Global(args[6]).role != GlobalRole::kDType) {
      return Invalid(place, "its dtype is not one");
    }
    const PickleGlobal& dtype = p_.Global(args[6]);
    tensor.dtype = dtype.dtype;
    unsupported = dtype.has_dtype ? nullptr : dtype.note;
  } else {
    if (bytes.untyped) return Invalid(place, "no dtype: _rebuild_tensor_v2 of an untyped storage");
    tensor.dtype = bytes.dtype;
  }
  if (unsupported != nullptr) {
    return absl::UnimplementedError(
        absl::StrCat(place, ": its dtype ", unsupported, " is not supported"));
  }

  if (!p_.IsInt(args[1])) return Invalid(place, "its storage offset is not an integer");
  StridedView& view = tensor.view.view;
  view.element_bytes = Info(tensor.dtype).block_bytes;
  if (auto s = ReadIntegers(args[2], "shape", place, &view.shape); !s.ok()) return s;
  if (auto s = ReadIntegers(args[3], "stride", place, &view.strides); !s.ok()) return s;
  if (auto s = PlaceView(p_.Int(args[1]), storage->offset_bytes, storage->bytes, place, &view);
      !s.ok()) {
    return s;
  }
  tensor.view.storage = storage->storage;
  return tensor;
}

// ("storage", type, key, location, elements[, None or (view key, offset, elements)]).
absl::StatusOr<TorchRebuilder::StorageView> TorchRebuilder::FindStorage(Ref r,
                                                                        const std::string& place) {
  if (p_.kind(r) != Kind::kPersistent || p_.kind(p_.Content(r)) != Kind::kTuple) {
    return Invalid(place, "a storage that is not one");
  }
  const auto id = p_.Items(p_.Content(r));
  if (id.size() < 5 || id.size() > 6 || !p_.IsString(id[0]) || p_.Text(id[0]) != "storage" ||
      p_.kind(id[1]) != Kind::kGlobal || p_.Global(id[1]).role != GlobalRole::kStorageType ||
      !IsKey(p_, id[2]) || !p_.IsString(id[3]) || !p_.IsInt(id[4])) {
    return Invalid(place, "a storage that is not described as torch does");
  }
  if (p_.Text(id[3]) == "meta") {
    return absl::UnimplementedError(
        absl::StrCat(place, ": meta (without data) tensors are not supported"));
  }
  const PickleGlobal& type = p_.Global(id[1]);
  TorchStorage storage;
  storage.key = KeyText(p_, id[2]);
  storage.dtype = type.dtype;
  storage.untyped = type.untyped;
  if (!type.has_dtype) storage.unsupported = type.note;
  storage.elements = p_.Int(id[4]);
  const int64_t element_bytes = Info(storage.dtype).block_bytes;
  if (storage.elements < 0 ||
      __builtin_mul_overflow(storage.elements, element_bytes, &storage.bytes)) {
    return Invalid(place, absl::StrCat("a storage of ", storage.elements, " elements"));
  }
  if (storage.key.size() > kMaxStorageKeyBytes) {
    return Invalid(
        place, absl::StrCat("the key of a storage is longer than ", kMaxStorageKeyBytes, " bytes"));
  }

  auto [known, added] = by_key_.emplace(storage.key, storages_.size());
  StorageView view{known->second, 0, storage.bytes};
  if (added) {
    if (views_.contains(storage.key)) {
      return Invalid(place, absl::StrCat("the key ", Quote(storage.key),
                                         " of a storage is that of a view, too"));
    }
    storages_.push_back(storage);
  } else {
    const TorchStorage& first = storages_[known->second];
    auto name = [](const TorchStorage& s) {
      return s.untyped ? "bytes" : s.unsupported != nullptr ? s.unsupported : Info(s.dtype).name;
    };
    if (absl::string_view(name(first)) != name(storage) || first.elements != storage.elements) {
      return Invalid(place, absl::StrCat("storage ", Quote(storage.key), " is ", storage.elements,
                                         " ", name(storage), " here, ", first.elements, " ",
                                         name(first), " elsewhere"));
    }
  }
  if (id.size() == 6 && p_.kind(id[5]) != Kind::kNone) {
    const bool triple = p_.kind(id[5]) == Kind::kTuple && p_.Items(id[5]).size() == 3;
    if (!triple || !IsKey(p_, p_.Items(id[5])[0]) || !p_.IsInt(p_.Items(id[5])[1]) ||
        !p_.IsInt(p_.Items(id[5])[2])) {
      return Invalid(place, "the view of a storage that is not described as torch does");
    }
    const int64_t offset = p_.Int(p_.Items(id[5])[1]), elements = p_.Int(p_.Items(id[5])[2]);
    if (offset < 0 || elements < 0 || offset > storage.elements ||
        elements > storage.elements - offset) {
      return Invalid(place, absl::StrCat("a view of elements ", offset, " to ", offset, " + ",
                                         elements, " of a storage of ", storage.elements));
    }
    view.offset_bytes = offset * element_bytes;
    view.bytes = elements * element_bytes;
    // torch looks views up by their keys, among the storages.
    const std::string key = KeyText(p_, p_.Items(id[5])[0]);
    if (key.size() > kMaxStorageKeyBytes) {
      return Invalid(
          place, absl::StrCat("the key of a view is longer than ", kMaxStorageKeyBytes, " bytes"));
    }
    const StorageView& first = views_.emplace(key, view).first->second;
    if (by_key_.contains(key) || first.storage != view.storage ||
        first.offset_bytes != view.offset_bytes || first.bytes != view.bytes) {
      return Invalid(place, absl::StrCat("the key ", Quote(key),
                                         " of a view of a storage is that of another one, too"));
    }
  }
  return view;
}

}  // namespace quire
