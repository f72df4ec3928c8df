#include "convert/pickle_vm.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "convert/little_endian.h"
#include "convert/pickle_opcodes.h"
#include "convert/quote.h"
#include "convert/text_coding.h"

namespace quire {

// One run over one pickle. Methods that can fail set status_ and return; Run looks at it after each
// opcode.
class PickleMachine {
 public:
  using Ref = Pickle::Ref;
  using Kind = Pickle::Kind;
  using Node = Pickle::Node;

  PickleMachine(absl::string_view bytes, absl::string_view place) : in_(bytes), place_(place) {}

  absl::StatusOr<Pickle> Run();

 private:
  // Errors.
  void Fail(absl::StatusCode code, absl::string_view what) {
    if (!status_.ok()) return;
    status_ = absl::Status(code, absl::StrCat(place_, ": pickle byte ", op_at_, ": ", what));
  }
  void Invalid(absl::string_view what) { Fail(absl::StatusCode::kInvalidArgument, what); }
  void OverLimit(absl::string_view what, int64_t limit) {
    Fail(absl::StatusCode::kResourceExhausted,
         absl::StrCat("more than ", limit, " ", what, ", the limit"));
  }
  void Unsupported(uint8_t op, absl::string_view name) {
    Fail(absl::StatusCode::kUnimplemented,
         absl::StrCat("opcode ", name, " (", op, "), which no checkpoint needs"));
  }

  // Input.
  int64_t Left() const { return in_.size() - at_; }
  const uint8_t* Take(uint64_t n);        // null, failed, where the input ends before
  uint64_t TakeLength(int length_bytes);  // of what follows; that much is there, or failed
  absl::string_view TakeLine();           // up to a newline, which is consumed
  template <typename T>
  T TakeNumber() {
    const uint8_t* p = Take(sizeof(T));
    return p == nullptr ? T{0} : LoadLittleEndian<T>(p);
  }

  // Arena. Every new node and every reference held by a container is charged.
  bool Charge(int64_t nodes);
  Ref Add(const Node& node);
  Ref AddText(Kind kind, absl::string_view text);  // copied
  Ref AddTuple(absl::Span<const Ref> items);
  Ref AddList(Kind kind, absl::Span<const Ref> items);
  Ref AddObject(const PickleGlobal* global, Ref arguments);
  Ref AddInteger(absl::Span<const uint8_t> little_endian);

  // Stack.
  void Push(Ref r);
  void PushNode(Kind kind) { Push(Add(Node{kind, {}})); }
  bool Need(size_t entries);  // above the last mark
  Ref Pop() {
    const Ref r = stack_.back();
    stack_.pop_back();
    return r;
  }
  bool PopToMark(absl::Span<const Ref>* items);  // valid until the next push; drop by Truncate
  void Truncate(absl::Span<const Ref> items) { stack_.resize(stack_.size() - items.size()); }

  // Opcodes.
  void Step(uint8_t op);
  void TextOpcode(uint8_t op);
  void TupleOf(size_t n);
  void Append(absl::Span<const Ref> items, Ref target, Kind kind);
  void SetItems(absl::Span<const Ref> items, Ref target);
  void PushGlobal(absl::string_view module, absl::string_view name);
  void Call(Ref function, Ref arguments, bool as_class);
  void MakeContainer(Kind kind, const PickleGlobal& global, absl::Span<const Ref> arguments);
  void Build(Ref target, Ref state);
  void Put(uint64_t index);
  void Get(uint64_t index);
  absl::Status CheckGraph() const;

  const absl::string_view in_;
  const std::string place_;
  size_t at_ = 0;
  size_t op_at_ = 0;
  absl::Status status_;
  bool stopped_ = false;
  int64_t charged_ = 0;
  Pickle p_;
  std::vector<Ref> stack_;
  std::vector<uint32_t> marks_;  // heights of stack_
  absl::flat_hash_map<uint32_t, Ref> memo_;
};

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
  auto& list = p_.lists_[p_.nodes_[target].list];
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
      return MakeContainer(Kind::kDict, *global, args);
    case GlobalRole::kListClass:
      return MakeContainer(Kind::kList, *global, args);
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
      // copyreg._reconstructor(class, base, state): how protocols 0 and 1 spell NEWOBJ.
      if (absl::string_view(global->name) == "_reconstructor") {
        if (args.size() != 3 || p_.kind(args[0]) != Kind::kGlobal) {
          return Invalid(absl::StrCat(name, " of what is not a class"));
        }
        const GlobalRole role = p_.Global(args[0]).role;
        if (role != GlobalRole::kDictClass && role != GlobalRole::kListClass &&
            role != GlobalRole::kNamespaceClass) {
          break;
        }
        const Ref made = args[0];
        return Call(made, AddTuple({}), true);
      }
      break;
    case GlobalRole::kNamespaceClass:
    case GlobalRole::kRebuildParameter:
    case GlobalRole::kUnsupportedTensor:
      break;
  }
  Push(AddObject(global, arguments));
}

// dict(...), OrderedDict(pairs), set(list), torch.Size(tuple), deque(list, maxlen), ...
void PickleMachine::MakeContainer(Kind kind, const PickleGlobal& global,
                                  absl::Span<const Ref> args) {
  const bool factory = absl::string_view(global.name) == "defaultdict";
  if (args.empty() || (factory && args.size() == 1)) return Push(AddList(kind, {}));
  const Ref from = args[0];
  if (kind == Kind::kList) {
    if (p_.IsSequence(from)) return Push(AddList(kind, p_.Items(from)));
  } else if (p_.kind(from) == Kind::kDict) {
    return Push(AddList(kind, p_.Items(from)));
  } else if (p_.IsSequence(from)) {
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

// The opcodes of protocol 0, whose arguments are lines of text.
void PickleMachine::TextOpcode(uint8_t op) {
  const absl::string_view line = TakeLine();
  if (!status_.ok()) return;
  int64_t number = 0;
  double real = 0;
  switch (op) {
    case op::kInt:
      if (line == "00" || line == "01") {
        Node node{Kind::kBool, {}};
        node.truth = line == "01";
        return Push(Add(node));
      }
      [[fallthrough]];
    case op::kLong: {
      absl::string_view digits = line;
      if (op == op::kLong && !digits.empty() && digits.back() == 'L') digits.remove_suffix(1);
      if (!absl::SimpleAtoi(digits, &number)) {
        // Text of a number beyond int64; only whether it is one matters.
        if (digits.empty() || digits.size() > 3 * kMaxPickleLongBytes ||
            digits.find_first_not_of("0123456789", digits[0] == '-') != absl::string_view::npos) {
          return Invalid(absl::StrCat("not an integer: ", Quote(line)));
        }
        return Push(AddText(Kind::kLong, digits));
      }
      Node node{Kind::kInt, {}};
      node.integer = number;
      return Push(Add(node));
    }
    case op::kFloat: {
      if (!absl::SimpleAtod(line, &real))
        return Invalid(absl::StrCat("not a float: ", Quote(line)));
      Node node{Kind::kFloat, {}};
      node.real = real;
      return Push(Add(node));
    }
    case op::kString: {
      std::string text;
      if (line.size() < 2 || (line[0] != '\'' && line[0] != '"') || line.back() != line[0] ||
          !absl::CUnescape(line.substr(1, line.size() - 2), &text)) {
        return Invalid(absl::StrCat("not a quoted string: ", Quote(line)));
      }
      return Push(AddText(Kind::kString, text));
    }
    case op::kUnicode: {
      std::string text;
      if (!DecodeRawUnicodeEscape(line, &text)) {
        return Invalid(absl::StrCat("a malformed escape: ", Quote(line)));
      }
      return Push(AddText(Kind::kString, text));
    }
    default:  // kGet, kPut
      if (!absl::SimpleAtoi(line, &number) || number < 0) {
        return Invalid(absl::StrCat("not a memo index: ", Quote(line)));
      }
      return op == op::kGet ? Get(number) : Put(number);
  }
}

void PickleMachine::Step(uint8_t op) {
  absl::Span<const Ref> items;
  switch (op) {
    case op::kProto: {
      const uint8_t version = TakeNumber<uint8_t>();
      if (version > 5) {
        Fail(absl::StatusCode::kUnimplemented,
             absl::StrCat("pickle protocol ", version, "; 0 to 5 are read"));
      }
      return;
    }
    case op::kFrame: {
      const uint64_t n = TakeNumber<uint64_t>();
      if (status_.ok() && n > static_cast<uint64_t>(Left())) {
        Invalid(absl::StrCat("a FRAME of ", n, " bytes, ", Left(), " are left"));
      }
      return;
    }
    case op::kStop:
      stopped_ = true;
      return;

    // Stack and memo.
    case op::kMark:
      if (marks_.size() >= static_cast<size_t>(kMaxPickleStack)) {
        return OverLimit("marks", kMaxPickleStack);
      }
      marks_.push_back(stack_.size());
      return;
    case op::kPop:
      // On a mark, POP takes the mark.
      if (!marks_.empty() && marks_.back() == stack_.size()) return marks_.pop_back();
      if (Need(1)) Pop();
      return;
    case op::kPopMark:
      if (PopToMark(&items)) Truncate(items);
      return;
    case op::kDup:
      if (Need(1)) Push(stack_.back());
      return;
    case op::kBinGet:
      return Get(TakeNumber<uint8_t>());
    case op::kLongBinGet:
      return Get(TakeNumber<uint32_t>());
    case op::kBinPut:
      return Put(TakeNumber<uint8_t>());
    case op::kLongBinPut:
      return Put(TakeNumber<uint32_t>());
    case op::kMemoize:
      return Put(memo_.size());

    // Plain values.
    case op::kNone:
      return PushNode(Kind::kNone);
    case op::kNewTrue:
    case op::kNewFalse: {
      Node node{Kind::kBool, {}};
      node.truth = op == op::kNewTrue;
      return Push(Add(node));
    }
    case op::kBinInt:
    case op::kBinInt1:
    case op::kBinInt2: {
      Node node{Kind::kInt, {}};
      node.integer = op == op::kBinInt    ? static_cast<int32_t>(TakeNumber<uint32_t>())
                     : op == op::kBinInt1 ? TakeNumber<uint8_t>()
                                          : TakeNumber<uint16_t>();
      return Push(Add(node));
    }
    case op::kLong1:
    case op::kLong4: {
      const uint32_t n = op == op::kLong1 ? TakeNumber<uint8_t>() : TakeNumber<uint32_t>();
      if (n > kMaxPickleLongBytes) {
        return Fail(
            absl::StatusCode::kResourceExhausted,
            absl::StrCat("an integer of ", n, " bytes; the limit is ", kMaxPickleLongBytes));
      }
      if (const uint8_t* p = Take(n); p != nullptr) Push(AddInteger({p, n}));
      return;
    }
    case op::kBinFloat: {
      const uint8_t* p = Take(8);
      if (p == nullptr) return;
      uint64_t bits = 0;
      for (int i = 0; i < 8; ++i) bits = bits << 8 | p[i];
      Node node{Kind::kFloat, {}};
      std::memcpy(&node.real, &bits, sizeof bits);
      return Push(Add(node));
    }
    case op::kShortBinUnicode:
    case op::kBinUnicode:
    case op::kBinUnicode8:
    case op::kShortBinString:
    case op::kBinString:
    case op::kShortBinBytes:
    case op::kBinBytes:
    case op::kBinBytes8:
    case op::kByteArray8: {
      const bool one =
          op == op::kShortBinUnicode || op == op::kShortBinString || op == op::kShortBinBytes;
      const bool four = op == op::kBinUnicode || op == op::kBinString || op == op::kBinBytes;
      const bool bytes = op == op::kShortBinBytes || op == op::kBinBytes || op == op::kBinBytes8 ||
                         op == op::kByteArray8;
      const uint64_t n = TakeLength(one ? 1 : four ? 4 : 8);
      if (!status_.ok()) return;
      const absl::string_view text = in_.substr(at_, n);
      at_ += n;
      return Push(AddText(bytes ? Kind::kBytes : Kind::kString, text));
    }
    case op::kInt:
    case op::kLong:
    case op::kFloat:
    case op::kString:
    case op::kUnicode:
    case op::kGet:
    case op::kPut:
      return TextOpcode(op);

    // Containers.
    case op::kEmptyTuple:
      return TupleOf(0);
    case op::kTuple1:
      return TupleOf(1);
    case op::kTuple2:
      return TupleOf(2);
    case op::kTuple3:
      return TupleOf(3);
    case op::kEmptyList:
    case op::kEmptySet:
      return Push(AddList(Kind::kList, {}));
    case op::kEmptyDict:
      return Push(AddList(Kind::kDict, {}));
    case op::kTuple:
    case op::kList:
    case op::kFrozenSet:
    case op::kDict: {
      if (!PopToMark(&items)) return;
      if (op == op::kDict && items.size() % 2 != 0) {
        return Invalid("DICT with an odd number of keys and values");
      }
      const Ref made = op == op::kTuple
                           ? AddTuple(items)
                           : AddList(op == op::kDict ? Kind::kDict : Kind::kList, items);
      Truncate(items);
      return Push(made);
    }
    case op::kAppend: {
      if (!Need(2)) return;
      const Ref item = Pop();
      return Append({&item, 1}, stack_.back(), Kind::kList);
    }
    case op::kAppends:
    case op::kAddItems:
      if (!PopToMark(&items)) return;
      Truncate(items);  // the span stays readable: nothing is pushed before it is copied
      if (Need(1)) Append(items, stack_.back(), Kind::kList);
      return;
    case op::kSetItem: {
      if (!Need(3)) return;
      const auto pair = absl::MakeConstSpan(stack_).last(2);
      Truncate(pair);
      return SetItems(pair, stack_.back());
    }
    case op::kSetItems:
      if (!PopToMark(&items)) return;
      Truncate(items);
      if (Need(1)) SetItems(items, stack_.back());
      return;

    // Globals and what is asked to be done with them.
    case op::kGlobal: {
      const absl::string_view module = TakeLine();
      const absl::string_view name = status_.ok() ? TakeLine() : absl::string_view();
      return PushGlobal(module, name);
    }
    case op::kStackGlobal: {
      if (!Need(2)) return;
      const Ref name = Pop(), module = Pop();
      if (!p_.IsString(name) || !p_.IsString(module))
        return Invalid("STACK_GLOBAL of what are not strings");
      return PushGlobal(p_.Text(module), p_.Text(name));
    }
    case op::kReduce:
    case op::kNewObj: {
      if (!Need(2)) return;
      const Ref arguments = Pop(), function = Pop();
      return Call(function, arguments, op == op::kNewObj);
    }
    case op::kNewObjEx: {
      if (!Need(3)) return;
      const Ref keywords = Pop(), arguments = Pop(), function = Pop();
      if (p_.kind(keywords) != Kind::kDict)
        return Invalid("NEWOBJ_EX whose keywords are not a dict");
      return Call(function, arguments, true);
    }
    case op::kBuild: {
      if (!Need(2)) return;
      const Ref state = Pop();
      return Build(stack_.back(), state);
    }
    case op::kBinPersid: {
      if (!Need(1)) return;
      Node node{Kind::kPersistent, {}};
      node.content = Pop();
      return Push(Add(node));
    }

    case op::kPersid:
      return Unsupported(op, "PERSID");
    case op::kInst:
      return Unsupported(op, "INST");
    case op::kObj:
      return Unsupported(op, "OBJ");
    case op::kExt1:
    case op::kExt2:
    case op::kExt4:
      return Unsupported(op, "EXT");
    case op::kNextBuffer:
      return Unsupported(op, "NEXT_BUFFER");
    case op::kReadonlyBuffer:
      return Unsupported(op, "READONLY_BUFFER");
    default:
      return Invalid(absl::StrCat("no such opcode: ", op));
  }
}

// No cycle, no path deeper than the limit, no more to walk than the limit. One visit a node,
// however often it is shared, on a stack of its own. The content of opaque objects is no part of
// the tree: nothing walks it, and there back references to a parent are usual.
absl::Status PickleMachine::CheckGraph() const {
  struct Entered {
    Ref node;
    uint32_t next = 0;  // of its children, to be visited
    int32_t depth = 1;
    int64_t walk = 1;
  };
  struct Measure {
    int32_t depth = 0;  // 0: not seen; -1: being visited
    uint32_t walk = 0;
  };
  auto children = [this](Ref r, Ref* single) -> absl::Span<const Ref> {
    switch (p_.kind(r)) {
      case Kind::kTuple:
      case Kind::kList:
      case Kind::kDict:
        return p_.Items(r);
      case Kind::kObject:
        switch (p_.Global(r).role) {
          case GlobalRole::kObjectClass:
            return {};
          case GlobalRole::kNamespaceClass:
            *single = p_.State(r);
            return {single, p_.HasState(r) ? size_t{1} : size_t{0}};
          default:
            break;
        }
        [[fallthrough]];
      case Kind::kPersistent:
        *single = p_.Content(r);
        return {single, 1};
      default:
        return {};
    }
  };
  std::vector<Measure> measures(p_.nodes_.size());
  std::vector<Entered> path = {{p_.root_}};
  measures[p_.root_].depth = -1;
  while (!path.empty()) {
    Entered& top = path.back();
    Ref single;
    const auto below = children(top.node, &single);
    if (top.next < below.size()) {
      const Ref child = below[top.next];
      const Measure& m = measures[child];
      if (m.depth < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(place_, ": a cycle: a value contains itself"));
      }
      if (m.depth > 0) {
        top.depth = std::max(top.depth, m.depth + 1);
        top.walk += m.walk;
        ++top.next;
        if (top.walk > kMaxPickleWalk) {
          return absl::ResourceExhaustedError(
              absl::StrCat(place_, ": shared values stand for more than ", kMaxPickleWalk,
                           " when each is counted wherever it is met, the limit"));
        }
      } else {
        measures[child].depth = -1;
        path.push_back({child});
      }
    } else {
      measures[top.node] = {top.depth, static_cast<uint32_t>(top.walk)};
      path.pop_back();
    }
    if (path.size() > kMaxPickleDepth || (!path.empty() && path.back().depth > kMaxPickleDepth)) {
      return absl::ResourceExhaustedError(
          absl::StrCat(place_, ": values nested deeper than ", kMaxPickleDepth, ", the limit"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Pickle> PickleMachine::Run() {
  if (in_.size() > static_cast<size_t>(kMaxPickleBytes)) {
    OverLimit("bytes of pickle", kMaxPickleBytes);
    return status_;
  }
  while (!stopped_) {
    op_at_ = at_;
    if (at_ == in_.size()) {
      Fail(absl::StatusCode::kDataLoss, "the pickle ends without STOP");
      return status_;
    }
    const uint8_t op = in_[at_++];
    Step(op);
    if (!status_.ok()) return status_;
  }
  if (stack_.size() != 1 || !marks_.empty()) {
    Invalid(absl::StrCat("STOP with ", stack_.size(), " values and ", marks_.size(),
                         " marks on the stack, where one value has to be"));
    return status_;
  }
  p_.root_ = stack_.back();
  p_.consumed_bytes_ = at_;
  if (auto s = CheckGraph(); !s.ok()) return s;
  return std::move(p_);
}

absl::StatusOr<Pickle> ParsePickle(absl::string_view bytes, absl::string_view place) {
  return PickleMachine(bytes, place).Run();
}

}  // namespace quire
