#include "convert/torch_listing.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "convert/little_endian.h"
#include "convert/quote.h"
#include "convert/text_coding.h"
#include "convert/torch_rebuild.h"
#include "format/half.h"

namespace quire {
namespace {

using Ref = Pickle::Ref;
using Kind = Pickle::Kind;
using nlohmann::json;

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// The text of a str, or of a bytes object in any of its spellings. False where it is longer than
// any name: objects are looked into wherever they are met.
bool BytesOf(const Pickle& p, Ref r, std::string* bytes) {
  if (p.kind(r) == Kind::kBytes || p.kind(r) == Kind::kString) {
    if (p.Text(r).size() > kMaxTensorNameBytes) return false;
    *bytes = std::string(p.Text(r));
    return true;
  }
  if (p.kind(r) != Kind::kObject || absl::string_view(p.Global(r).name) != "encode") return false;
  const auto args = p.Items(p.Content(r));
  return args.size() == 2 && p.IsString(args[0]) &&
         p.Text(args[0]).size() <= 2 * kMaxTensorNameBytes && DecodeLatin1(p.Text(args[0]), bytes);
}

// numpy.core.multiarray.scalar(dtype, bytes): best scores and step counts.
bool NumpyScalar(const Pickle& p, absl::Span<const Ref> args, json* value) {
  std::string bytes;
  if (args.size() != 2 || p.kind(args[0]) != Kind::kObject || !BytesOf(p, args[1], &bytes))
    return false;
  const auto dtype = p.Items(p.Content(args[0]));
  if (dtype.empty() || !p.IsString(dtype[0])) return false;
  const absl::string_view code = p.Text(dtype[0]);
  if (code == "f8" && bytes.size() == 8) {
    const auto bits = LoadLittleEndian<uint64_t>(bytes.data());
    double number;
    std::memcpy(&number, &bits, sizeof number);
    *value = number;
  } else if (code == "f4" && bytes.size() == 4) {
    *value = BitsToFloat(LoadLittleEndian<uint32_t>(bytes.data()));
  } else if (code == "i8" && bytes.size() == 8) {
    *value = static_cast<int64_t>(LoadLittleEndian<uint64_t>(bytes.data()));
  } else if (code == "i4" && bytes.size() == 4) {
    *value = static_cast<int32_t>(LoadLittleEndian<uint32_t>(bytes.data()));
  } else if (code == "b1" && bytes.size() == 1) {
    *value = bytes[0] != 0;
  } else {
    return false;
  }
  return true;
}

// Objects that stand for a number or a string. Others have no JSON.
bool ObjectJson(const Pickle& p, Ref r, json* value) {
  const absl::string_view module = p.Global(r).module, name = p.Global(r).name;
  if (p.kind(p.Content(r)) != Kind::kTuple) return false;
  const auto args = p.Items(p.Content(r));
  if (name == "scalar") return NumpyScalar(p, args, value);
  const bool path = module == "pathlib" || module == "pathlib._local";
  const bool text = path || name == "device" || name == "TorchVersion" || name == "_get_layout";
  if (!text || args.empty() || args.size() > kMaxTensorNameBytes) return false;
  std::string joined;
  for (Ref arg : args) {
    if (p.IsString(arg)) {
      if (joined.size() + p.Text(arg).size() > kMaxTensorNameBytes) return false;
      if (path && !joined.empty() && joined.back() != '/') joined += '/';
      absl::StrAppend(&joined, p.Text(arg));
    } else if (p.IsInt(arg)) {
      absl::StrAppend(&joined, ":", p.Int(arg));  // torch.device('cuda', 0)
    } else {
      return false;
    }
  }
  *value = joined;
  return true;
}

bool ScalarJson(const Pickle& p, Ref r, json* value) {
  switch (p.kind(r)) {
    case Kind::kNone:
      *value = nullptr;
      return true;
    case Kind::kBool:
      *value = p.Bool(r);
      return true;
    case Kind::kInt:
      *value = p.Int(r);
      return true;
    case Kind::kFloat:
      *value = p.Float(r);  // dumped as null where it is no number
      return true;
    case Kind::kString:
      if (p.Text(r).size() > static_cast<size_t>(kMaxMetadataBytes)) return false;
      *value = std::string(p.Text(r));
      return true;
    case Kind::kGlobal:
      if (p.Global(r).role != GlobalRole::kDType) return false;
      *value = absl::StrCat("torch.", p.Global(r).name);
      return true;
    case Kind::kObject:
      return ObjectJson(p, r, value);
    default:
      return false;
  }
}

// Appends Python's repr() of a string. False where that would escape something, or may: it does so
// with what is not ASCII where Unicode does not call it printable.
bool AppendQuoted(absl::string_view string, std::string* text) {
  for (const char c : string) {
    if (c < 0x20 || c > 0x7e || c == '\'' || c == '\\') return false;
  }
  absl::StrAppend(text, "'", string.substr(0, kMaxTensorNameBytes), "'");
  return true;
}

// Appends a key as a component of a dotted name, Python's str() of it; of one that is too long,
// only as much as shows that. Inside of a tuple that is repr(). False for kinds of keys that are
// seldom used and whose text is not that simple.
bool AppendKey(const Pickle& p, Ref r, bool in_tuple, std::string* text) {
  json value;
  std::string bytes;
  switch (p.kind(r)) {
    case Kind::kString:
      if (in_tuple) return AppendQuoted(p.Text(r), text);
      absl::StrAppend(text, p.Text(r).substr(0, kMaxTensorNameBytes + 1));
      return true;
    case Kind::kGlobal:
      absl::StrAppend(text, p.Global(r).module, ".", p.Global(r).name);
      return true;
    case Kind::kTuple: {
      const auto items = p.Items(r);
      *text += '(';
      for (size_t i = 0; i < items.size() && text->size() <= kMaxTensorNameBytes; ++i) {
        if (i > 0) *text += ", ";
        if (!AppendKey(p, items[i], true, text)) return false;
      }
      *text += items.size() == 1 ? ",)" : ")";
      return true;
    }
    case Kind::kFloat:
      // From there on, Python and JSON differ about exponents.
      if (!(std::abs(p.Float(r)) < 1e15)) return false;
      break;
    default:
      if (BytesOf(p, r, &bytes)) {
        *text += 'b';
        return AppendQuoted(bytes, text);
      }
  }
  if (!ScalarJson(p, r, &value) || (in_tuple && value.is_string())) return false;
  absl::StrAppend(text, value.is_null()      ? "None"
                        : value.is_boolean() ? (value.get<bool>() ? "True" : "False")
                        : value.is_string()  ? value.get<std::string>()
                                             : Dump(value));
  return true;
}

// The same for keys that are equal in Python, as True, 1 and 1.0; `text` is AppendKey's.
std::string KeyIdentity(const Pickle& p, Ref r, absl::string_view text) {
  if (p.IsString(r)) return absl::StrCat("'", text);
  if (p.kind(r) == Kind::kBool) return absl::StrCat(p.Bool(r));
  if (p.kind(r) == Kind::kFloat && std::trunc(p.Float(r)) == p.Float(r)) {
    return absl::StrCat(static_cast<int64_t>(p.Float(r)));  // below 1e15
  }
  return std::string(text);
}

class Lister {
 public:
  Lister(const Pickle& pickle, absl::string_view place, const TarTensors* tar)
      : p_(pickle), place_(place), rebuilder_(pickle, tar) {}

  absl::StatusOr<TorchListing> List() {
    if (auto s = Walk(p_.root()); !s.ok()) return s;
    if (auto s = rebuilder_.NoteStorages(place_); !s.ok()) return s;
    listing_.storages = rebuilder_.TakeStorages();
    return std::move(listing_);
  }

 private:
  // As deep as the pickle, which is limited.
  absl::Status Walk(Ref r) {
    switch (p_.kind(r)) {
      case Kind::kDict:
        return WalkDict(p_.Items(r));
      case Kind::kTuple:
      case Kind::kList:
        return WalkSequence(r);
      case Kind::kPersistent:
        return rebuilder_.IsTensor(r) ? AddTensor(r) : absl::OkStatus();
      case Kind::kObject:
        if (rebuilder_.IsTensor(r)) return AddTensor(r);
        if (p_.Global(r).role == GlobalRole::kNamespaceClass) {
          return p_.HasState(r) ? Walk(p_.State(r)) : absl::OkStatus();
        }
        break;
      default:
        break;
    }
    json value;
    return ScalarJson(p_, r, &value) ? AddMetadata(Dump(value)) : absl::OkStatus();
  }

  absl::Status WalkDict(absl::Span<const Ref> items) {
    const size_t before = listing_.tensors.size();
    for (size_t i = 0; i < items.size(); i += 2) {
      std::string key;
      const bool has_text = AppendKey(p_, items[i], false, &key);
      without_text_ += !has_text;
      if (auto s = Below(has_text ? key : "?", items[i + 1]); !s.ok()) return s;
      without_text_ -= !has_text;
    }
    return listing_.tensors.size() == before ? absl::OkStatus() : CheckKeys(items);
  }

  // In Python, the last value of a key that occurs again is the only one.
  absl::Status CheckKeys(absl::Span<const Ref> items) {
    absl::flat_hash_set<std::string> keys;
    keys.reserve(items.size() / 2);
    for (size_t i = 0; i < items.size(); i += 2) {
      std::string text;
      // Below others, tensors are refused.
      if (!AppendKey(p_, items[i], false, &text) || text.size() > kMaxTensorNameBytes) continue;
      if (auto s = Count(text.size()); !s.ok()) return s;
      if (keys.insert(KeyIdentity(p_, items[i], text)).second) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(place_, ": ", Quote(named_ ? absl::StrCat(name_, ".", text) : text),
                       " is twice in a dict"));
    }
    return absl::OkStatus();
  }

  // Plain values as one JSON array; other items one by one, by their index.
  absl::Status WalkSequence(Ref r) {
    const auto items = p_.Items(r);
    json array = json::array();
    int64_t text_bytes = 0;
    bool plain = true, small = items.size() <= kMaxMetadataItems;
    for (size_t i = 0; plain && i < items.size(); ++i) {
      json value;
      plain = ScalarJson(p_, items[i], &value);
      if (!plain || !small) continue;
      if (value.is_string()) text_bytes += value.get_ref<const std::string&>().size();
      small = text_bytes <= kMaxMetadataBytes;
      array.push_back(std::move(value));
    }
    if (plain) return small ? AddMetadata(Dump(array)) : absl::OkStatus();
    for (size_t i = 0; i < items.size(); ++i) {
      if (auto s = Below(absl::StrCat(i), items[i]); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  // Walks r under the name so far with `key` behind it. A name that would be too long is not built:
  // tensors with such a name are refused, settings left out.
  absl::Status Below(const std::string& key, Ref r) {
    const size_t size = name_.size();
    const bool fits = size + (named_ ? 1 : 0) + key.size() <= kMaxTensorNameBytes;
    if (fits) {
      if (named_) name_ += '.';
      name_ += key;
    } else {
      ++too_long_;
    }
    const bool named = std::exchange(named_, true);
    absl::Status s = Walk(r);
    named_ = named;
    name_.resize(size);
    if (!fits) --too_long_;
    return s;
  }

  bool NameIsText() const { return too_long_ == 0 && without_text_ == 0 && IsPlainText(name_); }

  absl::Status Count(int64_t bytes) {
    listing_bytes_ += bytes;
    if (listing_bytes_ <= kMaxListingBytes) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat(place_, ": names and settings of more than ",
                                                     kMaxListingBytes, " bytes, the limit"));
  }

  absl::Status AddMetadata(std::string json_text) {
    if (!NameIsText()) return absl::OkStatus();
    if (auto s = Count(name_.size() + json_text.size() + 64); !s.ok()) return s;
    listing_.metadata.emplace_back(name_, std::move(json_text));
    return absl::OkStatus();
  }

  absl::Status AddTensor(Ref r) {
    const std::string place = absl::StrCat(place_, ": tensor ", Quote(name_));
    if (too_long_ > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": its name is longer than ", kMaxTensorNameBytes, " bytes"));
    }
    if (without_text_ > 0) {
      return absl::UnimplementedError(
          absl::StrCat(place, ": below a key ('?') of a kind that is not supported in names"));
    }
    if (!NameIsText()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": its name has control characters or is not UTF-8"));
    }
    if (listing_.tensors.size() >= static_cast<size_t>(kMaxTorchTensors)) {
      return absl::ResourceExhaustedError(
          absl::StrCat(place_, ": more than ", kMaxTorchTensors, " tensors, the limit"));
    }
    absl::StatusOr<RebuiltTensor> made = rebuilder_.Rebuild(r, place);
    if (!made.ok()) return made.status();
    if (!names_.insert(name_).second) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": two tensors of this name"));
    }
    if (auto s = Count(2 * name_.size() + 16 * made->view.view.shape.size() + 64); !s.ok())
      return s;
    listing_.tensors.push_back({name_, made->view.view.shape, made->dtype});
    listing_.views.push_back(std::move(made->view));
    return absl::OkStatus();
  }

  const Pickle& p_;
  const std::string place_;
  TorchRebuilder rebuilder_;
  TorchListing listing_;
  std::string name_;
  bool named_ = false;    // below a key: the next is set off by a dot
  int too_long_ = 0;      // keys on the way here that name_ leaves out
  int without_text_ = 0;  // keys on the way here that name_ has as '?'
  absl::flat_hash_set<std::string> names_;
  int64_t listing_bytes_ = 0;
};

}  // namespace

absl::StatusOr<TorchListing> ListTorchTensors(const Pickle& pickle, absl::string_view place,
                                              const TarTensors* tar) {
  return Lister(pickle, place, tar).List();
}

}  // namespace quire
