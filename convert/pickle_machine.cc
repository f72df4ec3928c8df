// Input, arena and stack of the pickle machine, and what globals, calls and containers become.
#include "convert/pickle_machine.h"

#include "convert/quote.h"

namespace quire {

const uint8_t* PickleMachine::Take(uint64_t n) {
  if (n > static_cast<uint64_t>(Left())) {
    Fail(absl::StatusCode::kDataLoss, "the pickle ends inside an opcode, without STOP");
    return nullptr;
  }
  const uint8_t* p = reinterpret_cast<const uint8_t*>(in_.data()) + at_;
  at_ += n;
  return p;
}

uint64_t PickleMachine::TakeLength(int length_bytes) {
  const uint8_t* p = Take(length_bytes);
  if (p == nullptr) return 0;
  uint64_t n = 0;
  for (int i = 0; i < length_bytes; ++i) n |= uint64_t{p[i]} << (8 * i);
  if (n > static_cast<uint64_t>(Left())) {
    Invalid(absl::StrCat("announces ", n, " bytes, ", Left(), " are left"));
    return 0;
  }
  return n;
}

absl::string_view PickleMachine::TakeLine() {
  const size_t end = in_.find('\n', at_);
  if (end == absl::string_view::npos) {
    Fail(absl::StatusCode::kDataLoss, "the pickle ends inside a line, without STOP");
    return {};
  }
  const absl::string_view line = in_.substr(at_, end - at_);
  at_ = end + 1;
  return line;
}

bool PickleMachine::Charge(int64_t nodes) {
  charged_ += nodes;
  if (charged_ <= kMaxPickleNodes) return true;
  OverLimit("values", kMaxPickleNodes);
  return false;
}

Pickle::Ref PickleMachine::Add(const Node& node) {
  if (!Charge(1)) return 0;
  p_.nodes_.push_back(node);
  return p_.nodes_.size() - 1;
}

Pickle::Ref PickleMachine::AddText(Kind kind, absl::string_view text) {
  Node node{kind, {}};
  node.text = {static_cast<uint32_t>(p_.text_.size()), static_cast<uint32_t>(text.size())};
  p_.text_.append(text.data(), text.size());
  return Add(node);
}

Pickle::Ref PickleMachine::AddTuple(absl::Span<const Ref> items) {
  if (!Charge(items.size())) return 0;
  Node node{Kind::kTuple, {}};
  node.tuple = {static_cast<uint32_t>(p_.slots_.size()), static_cast<uint32_t>(items.size())};
  p_.slots_.insert(p_.slots_.end(), items.begin(), items.end());
  return Add(node);
}

Pickle::Ref PickleMachine::AddList(Kind kind, absl::Span<const Ref> items) {
  if (!Charge(items.size())) return 0;
  Node node{kind, {}};
  node.list = p_.lists_.size();
  p_.lists_.emplace_back(items.begin(), items.end());
  return Add(node);
}

Pickle::Ref PickleMachine::AddObject(const PickleGlobal* global, Ref arguments) {
  Node node{Kind::kObject, {}};
  node.object = p_.objects_.size();
  p_.objects_.push_back({global, arguments, 0, false});
  return Add(node);
}

Pickle::Ref PickleMachine::AddInteger(absl::Span<const uint8_t> bytes) {
  while (bytes.size() > 8) {  // drop bytes that only extend the sign
    const bool negative = (bytes[bytes.size() - 2] & 0x80) != 0;
    if (bytes.back() != (negative ? 0xff : 0)) break;
    bytes.remove_suffix(1);
  }
  if (bytes.size() > 8) {
    return AddText(Kind::kLong,
                   absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  uint64_t value = !bytes.empty() && (bytes.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | bytes[i];
  Node node{Kind::kInt, {}};
  node.integer = static_cast<int64_t>(value);
  return Add(node);
}

void PickleMachine::Push(Ref r) {
  if (stack_.size() >= static_cast<size_t>(kMaxPickleStack)) {
    OverLimit("values on the stack", kMaxPickleStack);
    return;
  }
  stack_.push_back(r);
}

bool PickleMachine::Need(size_t entries) {
  const size_t floor = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() - floor >= entries) return true;
  Invalid(absl::StrCat("stack underflow: needs ", entries, " values, has ", stack_.size() - floor));
  return false;
}

bool PickleMachine::PopToMark(absl::Span<const Ref>* items) {
  if (marks_.empty()) {
    Invalid("no MARK on the stack");
    return false;
  }
  const size_t floor = marks_.back();
  marks_.pop_back();
  *items = absl::MakeConstSpan(stack_).subspan(floor);
  return true;
}

void PickleMachine::TupleOf(size_t n) {
  if (!Need(n)) return;
  const auto items = absl::MakeConstSpan(stack_).last(n);
  const Ref tuple = AddTuple(items);
  Truncate(items);
  Push(tuple);
}

void PickleMachine::Append(absl::Span<const Ref> items, Ref target, Kind kind) {
  if (p_.kind(target) != kind) return Invalid("APPEND to what is not a list");
  if (!Charge(items.size())) return;
  const uint32_t index = p_.nodes_[target].list;
  auto& list = p_.lists_[index];
  const auto limit = max_items_.find(index);
  if (limit != max_items_.end() &&
      static_cast<int64_t>(list.size() + items.size()) > limit->second) {
    return Invalid("a list or dict changes after another was made of it, or outgrows its maxlen");
  }
  list.insert(list.end(), items.begin(), items.end());
}

void PickleMachine::SetItems(absl::Span<const Ref> items, Ref target) {
  if (p_.kind(target) != Kind::kDict) return Invalid("SETITEM on what is not a dict");
  if (items.size() % 2 != 0) return Invalid("SETITEMS with an odd number of keys and values");
  Append(items, target, Kind::kDict);
}

void PickleMachine::PushGlobal(absl::string_view module, absl::string_view name) {
  if (!status_.ok()) return;
  if (module.size() > kMaxPickleGlobalBytes || name.size() > kMaxPickleGlobalBytes) {
    return Invalid(
        absl::StrCat("the name of a global is longer than ", kMaxPickleGlobalBytes, " bytes"));
  }
  const PickleGlobal* global = FindPickleGlobal(module, name);
  if (global == nullptr) {
    return Invalid(absl::StrCat(
        "refused: the global ", Quote(absl::StrCat(module, " ", name)),
        " is not one that plain tensors and settings need (save a state_dict of plain tensors)"));
  }
  if (global->role == GlobalRole::kUnsupportedClass) {
    return Fail(absl::StatusCode::kUnimplemented,
                absl::StrCat(global->note, " tensors are not supported (", module, ".", name, ")"));
  }
  Node node{Kind::kGlobal, {}};
  node.global = global;
  Push(Add(node));
}

// REDUCE and NEWOBJ. Recorded, never made.
void PickleMachine::Call(Ref function, Ref arguments, bool as_class) {
  if (p_.kind(function) != Kind::kGlobal) return Invalid("a call of what is not a global");
  if (p_.kind(arguments) != Kind::kTuple) return Invalid("a call whose arguments are not a tuple");
  const PickleGlobal* global = p_.nodes_[function].global;
  const std::string name = absl::StrCat(global->module, ".", global->name);
  absl::Span<const Ref> args = p_.Items(arguments);
  switch (global->role) {
    case GlobalRole::kDictClass:
    case GlobalRole::kListClass:
      // Python's __new__ fills tuples alone; nobody writes it with arguments.
      if (as_class && !args.empty()) return Invalid(absl::StrCat("NEWOBJ of a filled ", name));
      return MakeContainer(global->role == GlobalRole::kDictClass ? Kind::kDict : Kind::kList,
                           *global, args);
    case GlobalRole::kConstant:
    case GlobalRole::kStorageType:
    case GlobalRole::kDType:
    case GlobalRole::kTensorClass:
      return Invalid(absl::StrCat("a call of ", name, ", which is not callable here"));
    case GlobalRole::kRebuildTensor:
    case GlobalRole::kRebuildTensorV3:
    case GlobalRole::kRebuildFromType:
      if (as_class) return Invalid(absl::StrCat("NEWOBJ of ", name, ", which is not a class"));
      break;
    case GlobalRole::kObjectClass:
      // copyreg._reconstructor(class, base, content or None): how protocols 0 and 1 spell NEWOBJ.
      if (absl::string_view(global->name) == "_reconstructor") {
        if (args.size() != 3 || p_.kind(args[0]) != Kind::kGlobal) {
          return Invalid(absl::StrCat(name, " of what is not a class"));
        }
        const GlobalRole role = p_.Global(args[0]).role;
        if (role != GlobalRole::kDictClass && role != GlobalRole::kListClass &&
            role != GlobalRole::kNamespaceClass) {
          break;
        }
        const Ref made = args[0], content = args[2];
        if (p_.kind(content) == Kind::kNone) return Call(made, AddTuple({}), true);
        return Call(made, AddTuple({content}), false);
      }
      break;
    case GlobalRole::kNamespaceClass:
    case GlobalRole::kRebuildParameter:
    case GlobalRole::kUnsupportedTensor:
    case GlobalRole::kUnsupportedClass:
      break;
  }
  Push(AddObject(global, arguments));
}

// dict(...), OrderedDict(pairs), set(list), torch.Size(tuple), deque(list, maxlen), ... A container
// made of another one of its kind is that one, which may not change any more: a copy could be asked
// for again and again.
void PickleMachine::MakeContainer(Kind kind, const PickleGlobal& global,
                                  absl::Span<const Ref> args) {
  const bool factory = absl::string_view(global.name) == "defaultdict";
  if (args.empty() || (factory && args.size() == 1)) return Push(AddList(kind, {}));
  const Ref from = args[0];
  const bool same = kind == Kind::kList ? p_.IsSequence(from) : p_.kind(from) == Kind::kDict;
  // deque(items, maxlen) drops the first of more items; none that is pickled has more.
  const bool bounded = absl::string_view(global.name) == "deque" && args.size() == 2 &&
                       p_.kind(args[1]) != Kind::kNone;
  const int64_t maxlen = bounded && p_.IsInt(args[1]) ? p_.Int(args[1]) : 0;
  if ((same || p_.IsSequence(from)) && p_.Items(from).empty()) {
    const Ref made = AddList(kind, {});
    if (bounded && status_.ok()) max_items_[p_.nodes_[made].list] = maxlen;
    return Push(made);
  }
  if (same && !(bounded && static_cast<int64_t>(p_.Items(from).size()) > maxlen)) {
    Use(from);
    return Push(from);
  }
  // A Counter of a list counts its items.
  if (kind == Kind::kDict && p_.IsSequence(from) && absl::string_view(global.name) != "Counter") {
    const Ref made = AddList(kind, {});
    for (Ref pair : p_.Items(from)) {
      if (!status_.ok()) return;
      if (!p_.IsSequence(pair) || p_.Items(pair).size() != 2) {
        return Invalid(absl::StrCat(global.name, " of a list that does not consist of pairs"));
      }
      Append(p_.Items(pair), made, kind);
    }
    return Push(made);
  }
  Invalid(
      absl::StrCat("a call of ", global.module, ".", global.name, " with unexpected arguments"));
}

// What is made of r has its items as they are now.
void PickleMachine::Use(Ref r) {
  if (p_.kind(r) != Kind::kList && p_.kind(r) != Kind::kDict) return;
  max_items_[p_.nodes_[r].list] = p_.Items(r).size();
}

void PickleMachine::Build(Ref target, Ref state) {
  switch (p_.kind(target)) {
    case Kind::kDict:
      // Attributes of an OrderedDict (a state_dict's _metadata) are no content.
      if (p_.kind(state) == Kind::kDict || p_.kind(state) == Kind::kNone) return;
      break;
    case Kind::kObject: {
      Pickle::Object& object = p_.objects_[p_.nodes_[target].object];
      const GlobalRole role = object.global->role;
      if (role != GlobalRole::kObjectClass && role != GlobalRole::kNamespaceClass) break;
      if (object.has_state) return Invalid("a second BUILD of one object");
      if (role == GlobalRole::kNamespaceClass) {
        if (p_.kind(state) != Kind::kDict) break;
        Use(state);
      }
      object.state = state;
      object.has_state = true;
      return;
    }
    default:
      break;
  }
  Invalid("BUILD of what takes no state");
}

void PickleMachine::Put(uint64_t index) {
  if (!status_.ok() || !Need(1)) return;
  if (index >= static_cast<uint64_t>(kMaxPickleMemo)) {
    return Fail(absl::StatusCode::kResourceExhausted,
                absl::StrCat("memo index ", index, "; the limit is ", kMaxPickleMemo));
  }
  memo_[static_cast<uint32_t>(index)] = stack_.back();
}

void PickleMachine::Get(uint64_t index) {
  if (!status_.ok()) return;
  auto it = index < static_cast<uint64_t>(kMaxPickleMemo) ? memo_.find(static_cast<uint32_t>(index))
                                                          : memo_.end();
  if (it == memo_.end()) return Invalid(absl::StrCat("nothing in the memo at ", index));
  Push(it->second);
}

}  // namespace quire
