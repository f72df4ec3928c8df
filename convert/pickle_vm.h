// Reading a pickle as inert data. Opcodes build values in an arena; a call that the pickle asks for
// is recorded (what, with which arguments) and never made.
#ifndef QUIRE_CONVERT_PICKLE_VM_H_
#define QUIRE_CONVERT_PICKLE_VM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "convert/pickle_globals.h"

namespace quire {

// Limits, so that memory and time stay in proportion to an honest checkpoint's. The pickle of a 7B
// checkpoint has 100 KB, 30,000 values, and a depth of 5.
inline constexpr int64_t kMaxPickleBytes = int64_t{64} << 20;
// Values, and references from one to another: 16 and 4 bytes each.
inline constexpr int64_t kMaxPickleNodes = int64_t{4} << 20;
// Entries waiting on the stack, and marks among them.
inline constexpr int64_t kMaxPickleStack = int64_t{1} << 20;
// Picklers number their memo from 0, one for each value.
inline constexpr int64_t kMaxPickleMemo = kMaxPickleNodes;
// Containers inside one another, on the way from the outermost to a value.
inline constexpr int kMaxPickleDepth = 100;
// Values met on a walk of all ways from the outermost, shared ones each time. A few nested tuples
// can stand for 2^60.
inline constexpr int64_t kMaxPickleWalk = int64_t{4} << 20;
// Random number generators keep the longest integers found in checkpoints, of 8 or 9 bytes.
inline constexpr int kMaxPickleLongBytes = 255;
// Of "module" and of "name" in a global.
inline constexpr int kMaxPickleGlobalBytes = 512;

class Pickle {
 public:
  using Ref = uint32_t;  // a value, by its place in the arena

  enum class Kind : uint8_t {
    kNone,
    kBool,
    kInt,
    kLong,  // outside of int64; Text(): two's complement, little-endian (protocols 0, 1: digits)
    kFloat,
    kString,  // Text(); bytes as they are in the pickle, not checked to be UTF-8
    kBytes,   // Text()
    kTuple,
    kList,        // also sets, deques, torch.Size
    kDict,        // also subclasses of dict; Items() alternate key and value
    kGlobal,      // a row of the table, named and not called
    kPersistent,  // Content(): the persistent id
    kObject,      // Global() called with Content(), a tuple; its state after BUILD: State()
  };

  struct Node {
    Kind kind;
    union {
      bool truth;
      int64_t integer;
      double real;
      struct {
        uint32_t offset, size;
      } text;
      struct {
        uint32_t begin, size;
      } tuple;
      uint32_t list;  // into lists_
      Ref content;
      const PickleGlobal* global;
      uint32_t object;  // into objects_
    };
  };

  Ref root() const { return root_; }
  int64_t size() const { return nodes_.size(); }  // Refs are below it
  Kind kind(Ref r) const { return nodes_[r].kind; }
  bool IsInt(Ref r) const { return kind(r) == Kind::kInt; }
  bool IsString(Ref r) const { return kind(r) == Kind::kString; }

  // Each wants the kind that its name says.
  bool Bool(Ref r) const { return nodes_[r].truth; }
  int64_t Int(Ref r) const { return nodes_[r].integer; }
  double Float(Ref r) const { return nodes_[r].real; }
  absl::string_view Text(Ref r) const {
    return absl::string_view(text_).substr(nodes_[r].text.offset, nodes_[r].text.size);
  }
  // Of a tuple, list or dict.
  absl::Span<const Ref> Items(Ref r) const {
    const Node& n = nodes_[r];
    if (n.kind == Kind::kTuple) return {slots_.data() + n.tuple.begin, n.tuple.size};
    return lists_[n.list];
  }
  bool IsSequence(Ref r) const { return kind(r) == Kind::kTuple || kind(r) == Kind::kList; }
  // Of a global or an object.
  const PickleGlobal& Global(Ref r) const {
    return kind(r) == Kind::kGlobal ? *nodes_[r].global : *objects_[nodes_[r].object].global;
  }
  // Of a persistent id or an object.
  Ref Content(Ref r) const {
    return kind(r) == Kind::kObject ? objects_[nodes_[r].object].arguments : nodes_[r].content;
  }
  bool HasState(Ref r) const { return objects_[nodes_[r].object].has_state; }
  Ref State(Ref r) const { return objects_[nodes_[r].object].state; }

  // Bytes of the input up to and with STOP.
  int64_t consumed_bytes() const { return consumed_bytes_; }

 private:
  friend class PickleMachine;
  struct Object {
    const PickleGlobal* global;
    Ref arguments;
    Ref state;
    bool has_state;
  };

  std::string text_;
  std::vector<Node> nodes_;
  std::vector<Ref> slots_;               // items of tuples
  std::vector<std::vector<Ref>> lists_;  // items of lists and dicts
  std::vector<Object> objects_;
  Ref root_ = 0;
  int64_t consumed_bytes_ = 0;
};

// Parses the pickle (protocols 0 to 5) at the start of `bytes`; what lies behind STOP is the
// caller's business. `place` begins the messages, "x.pt: record 'a/data.pkl'". Everything reachable
// from the root is a tree or shares parts: cycles are refused.
// InvalidArgument: malformed, or names a global that is not in the table; DataLoss: ends before
// STOP; Unimplemented: an opcode or protocol that plain data does not need; ResourceExhausted: over
// a limit above.
absl::StatusOr<Pickle> ParsePickle(absl::string_view bytes, absl::string_view place);

}  // namespace quire

#endif  // QUIRE_CONVERT_PICKLE_VM_H_
