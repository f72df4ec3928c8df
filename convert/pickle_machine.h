// The machine behind ParsePickle: input, arena, stack, and what each opcode does.
#ifndef QUIRE_CONVERT_PICKLE_MACHINE_H_
#define QUIRE_CONVERT_PICKLE_MACHINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "convert/little_endian.h"
#include "convert/pickle_vm.h"

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
  void Use(Ref r);
  void Build(Ref target, Ref state);
  void Put(uint64_t index);
  void Get(uint64_t index);

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
  absl::flat_hash_map<uint32_t, int64_t> max_items_;  // of those lists_ that have a limit
};

// Refuses cycles, and paths and walks longer than the limits.
absl::Status CheckPickleGraph(const Pickle& pickle, absl::string_view place);

}  // namespace quire

#endif  // QUIRE_CONVERT_PICKLE_MACHINE_H_
