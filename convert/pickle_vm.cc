// The opcodes.
#include "convert/pickle_vm.h"

#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "convert/pickle_machine.h"
#include "convert/pickle_opcodes.h"
#include "convert/quote.h"
#include "convert/text_coding.h"

namespace quire {

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
  if (auto s = CheckPickleGraph(p_, place_); !s.ok()) return s;
  return std::move(p_);
}

absl::StatusOr<Pickle> ParsePickle(absl::string_view bytes, absl::string_view place) {
  return PickleMachine(bytes, place).Run();
}

}  // namespace quire
