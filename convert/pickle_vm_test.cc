#include "convert/pickle_vm.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"
#include "format/test_caps.h"

namespace quire {
namespace {

using absl::StatusCode;
using Kind = Pickle::Kind;

const char kPlace[] = "x.pt: record 'x/data.pkl'";

void Refused(const std::string& bytes, StatusCode code, const std::vector<std::string>& words) {
  auto parse = [&](const std::string& place) { return ParsePickle(bytes, place); };
  ExpectRefusedFile(kPlace, bytes.size(), parse, code, words);
}

Pickle Parse(const std::string& bytes) {
  auto pickle = ParsePickle(bytes, kPlace);
  EXPECT_TRUE(pickle.ok()) << pickle.status();
  return pickle.ok() ? *std::move(pickle) : *ParsePickle("N.", kPlace);
}

// A value in the notation of Python's repr, nearly.
std::string Show(const Pickle& p, Pickle::Ref r) {
  std::string items;
  switch (p.kind(r)) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return p.Bool(r) ? "True" : "False";
    case Kind::kInt:
      return std::to_string(p.Int(r));
    case Kind::kLong:
      return "long of " + std::to_string(p.Text(r).size());
    case Kind::kFloat:
      return std::to_string(p.Float(r));
    case Kind::kString:
      return "'" + std::string(p.Text(r)) + "'";
    case Kind::kBytes:
      return "b'" + std::string(p.Text(r)) + "'";
    case Kind::kTuple:
    case Kind::kList:
    case Kind::kDict:
      for (Pickle::Ref item : p.Items(r)) items += (items.empty() ? "" : ", ") + Show(p, item);
      return (p.kind(r) == Kind::kTuple  ? "("
              : p.kind(r) == Kind::kList ? "["
                                         : "{") +
             items +
             (p.kind(r) == Kind::kTuple  ? ")"
              : p.kind(r) == Kind::kList ? "]"
                                         : "}");
    case Kind::kGlobal:
      return std::string(p.Global(r).module) + "." + p.Global(r).name;
    case Kind::kPersistent:
      return "id " + Show(p, p.Content(r));
    case Kind::kObject:
      return std::string(p.Global(r).name) + Show(p, p.Content(r)) +
             (p.HasState(r) ? " with " + Show(p, p.State(r)) : "");
  }
  return "?";
}

std::string Shown(const std::string& bytes) {
  const Pickle p = Parse(bytes);
  return Show(p, p.root());
}

std::string WithNuls(const char* text, size_t size) { return std::string(text, size); }
#define BYTES(literal) WithNuls(literal, sizeof(literal) - 1)

TEST(Pickle, ReadsPlainValues) {
  EXPECT_EQ(Shown("N."), "None");
  EXPECT_EQ(Shown("(K\x01M\x02\x01J\xff\xff\xff\xff\x88\x89t."), "(1, 258, -1, True, False)");
  EXPECT_EQ(Shown(BYTES("\x8a\x00.")), "0");
  EXPECT_EQ(Shown(BYTES("\x8a\x01\xff.")), "-1");
  EXPECT_EQ(Shown(BYTES("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00.")), "9223372036854775807");
  EXPECT_EQ(Shown(BYTES("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.")), "long of 9");
  EXPECT_EQ(Shown(BYTES("G\x3f\xf8\x00\x00\x00\x00\x00\x00.")), "1.500000");
  EXPECT_EQ(Shown(BYTES("(X\x02\x00\x00\x00hiU\x02yoC\x01z\x8c\x01wt.")),
            "('hi', 'yo', b'z', 'w')");
  EXPECT_EQ(Shown("](K\x01K\x02"
                  "e(K\x03"
                  "e."),
            "[1, 2, 3]");
  EXPECT_EQ(Shown("}U\x01"
                  "aK\x01s(U\x01"
                  "bK\x02U\x01"
                  "cK\x03u."),
            "{'a', 1, 'b', 2, 'c', 3}");
  EXPECT_EQ(Shown("K\x01\x85K\x02\x86."), "((1), 2)");
  EXPECT_EQ(Shown("\x8f(K\x01\x90."), "[1]");
}

TEST(Pickle, SharesWhatTheMemoNames) {
  const Pickle p = Parse("]q\x05h\x05\x86.");
  const auto items = p.Items(p.root());
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0], items[1]);
}

TEST(Pickle, RecordsCallsWithoutMakingThem) {
  EXPECT_EQ(Shown("ctorch\ndevice\n(U\x03"
                  "cputR."),
            "device('cpu')");
  EXPECT_EQ(Shown("cargparse\nNamespace\n)\x81}U\x01wK\x03sb."), "Namespace() with {'w', 3}");
  EXPECT_EQ(Shown("ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR}b."),
            "Namespace() with {}");
  EXPECT_EQ(Shown("ccollections\nOrderedDict\n)RU\x01"
                  "aK\x01s}b."),
            "{'a', 1}");
  EXPECT_EQ(Shown("ccollections\nOrderedDict\n(](]U\x01"
                  "aaK\x01"
                  "aetR."),
            "{'a', 1}");
  EXPECT_EQ(Shown("ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RU\x01"
                  "aK\x01s."),
            "{'a', 1}");
  EXPECT_EQ(Shown("c__builtin__\nset\n](K\x01K\x02"
                  "e\x85R."),
            "[1, 2]");
  EXPECT_EQ(Shown("(U\x07storagectorch\nFloatStorage\nU\x01"
                  "0U\x03"
                  "cpuK\x02tQ."),
            "id ('storage', torch.FloatStorage, '0', 'cpu', 2)");
}

TEST(Pickle, Case24_SystemIsNeverRun) {
  const std::string mark = ::testing::TempDir() + "/touched";
  for (const char* module : {"posix", "os", "nt", "subprocess", "builtins", "__builtin__"}) {
    for (const char* name : {"system", "popen", "eval", "exec", "getattr", "__import__"}) {
      const std::string pickle = Pickler()
                                     .Proto(2)
                                     .Global(module, name)
                                     .Mark()
                                     .Str("touch " + mark)
                                     .Tuple()
                                     .Reduce()
                                     .Stop();
      Refused(pickle, StatusCode::kInvalidArgument, {std::string(module) + " " + name, "refused"});
    }
  }
  std::ifstream file(mark);
  EXPECT_FALSE(file.good());
}

TEST(Pickle, Case25_StackGlobalFromTheMemoAndDottedNames) {
  Refused(Pickler()
              .Proto(4)
              .Str("posix")
              .Put(0)
              .Raw("0")
              .Str("system")
              .Put(1)
              .Raw("0")
              .Get(0)
              .Get(1)
              .Raw("\x93")
              .Stop(),
          StatusCode::kInvalidArgument, {"posix system"});
  const std::pair<const char*, const char*> dotted[] = {
      {"torch", "_utils._rebuild_tensor_v2"},
      {"collections", "OrderedDict.fromkeys"},
      {"torch._utils", "_rebuild_tensor_v2.__globals__"},
      {"torch", "nn.parameter.Parameter"},
      {"collections.OrderedDict", ""},
      {"", "collections OrderedDict"},
      {"collections ", "OrderedDict"},
      {"torch", "serialization.os.system"}};
  for (const auto& [module, name] : dotted) {
    Refused(Pickler().Str(module).Str(name).Raw("\x93").Stop(), StatusCode::kInvalidArgument,
            {"refused"});
    Refused(Pickler().Global(module, name).Stop(), StatusCode::kInvalidArgument, {"refused"});
  }
  Refused(Pickler().Int(1).Str("system").Raw("\x93").Stop(), StatusCode::kInvalidArgument,
          {"STACK_GLOBAL"});
  Refused("c" + std::string(5000, 'a') + "\nb\n.", StatusCode::kInvalidArgument, {"512"});
}

TEST(Pickle, MessagesShowNoControlCharacters) {
  for (const auto& [name, shown] : std::vector<std::pair<std::string, std::string>>{
           {"\x1b[2J", "\\x1b[2J"},
           {"\u202exyz", "\\xe2\\x80\\xaexyz"},
           {"\u200f.", "\\xe2\\x80\\x8f."},
           {"\u2028", "\\xe2\\x80\\xa8"},
           {"\u2066x", "\\xe2\\x81\\xa6x"},
           {"\u061cx", "\\xd8\\x9cx"},
           {"\u009b[2J", "\\xc2\\x9b[2J"},
           {"\u00e9\u0441\u2013\u2070", "\u00e9\u0441\u2013\u2070"}}) {
    Refused(Pickler().Global("torch", name).Stop(), StatusCode::kInvalidArgument,
            {"'torch " + shown + "'"});
  }
}

TEST(Pickle, Case26_CallsAndStatesOfTheWrongType) {
  const char* const cases[] = {
      "K\x01)R.",                                   // a number
      "U\x05posix)R.",                              // a string
      "ctorch\nfloat32\n)R.",                       // a constant
      "ctorch\nFloatStorage\n)R.",                  // a storage type
      "ctorch._utils\n_rebuild_tensor_v2\n)\x81.",  // a function, as a class
      "ctorch\ndevice\nK\x01R.",                    // arguments that are no tuple
      "ctorch\ndevice\n]R.",
      "ccollections\nOrderedDict\nK\x01\x85R.",  // unexpected arguments
      "c__builtin__\nset\nK\x05\x85R.",
      "ccollections\nOrderedDict\n]K\x01"
      "a\x85R.",   // of no pairs
      "K\x01}b.",  // state of a number
      "]}b.",
      "ctorch\nfloat32\n}b.",
      "ctorch._utils\n_rebuild_tensor_v2\n)R}b.",  // of a tensor
      "ccollections\nOrderedDict\n)RK\x01"
      "b.",                                // a state that is none
      "cargparse\nNamespace\n)\x81}b}b.",  // twice
      "ccopyreg\n_reconstructor\n(K\x01K\x02NtR.",
      "ctorch\ndevice\n)K\x01\x92.",  // keywords that are no dict
  };
  for (const char* bytes : cases) Refused(bytes, StatusCode::kInvalidArgument, {"pickle byte"});
}

TEST(Pickle, Case27_SetItemOnATensor) {
  const std::string tensor = "ctorch._utils\n_rebuild_tensor_v2\n)R";
  Refused(tensor + "K\x01K\x02s.", StatusCode::kInvalidArgument, {"SETITEM"});
  Refused(tensor + "(K\x01K\x02u.", StatusCode::kInvalidArgument, {"SETITEM"});
  Refused(tensor +
              "K\x01"
              "a.",
          StatusCode::kInvalidArgument, {"APPEND"});
  Refused(tensor +
              "(K\x01"
              "e.",
          StatusCode::kInvalidArgument, {"APPEND"});
  Refused("]K\x01K\x02s.", StatusCode::kInvalidArgument, {"SETITEM"});
  Refused(
      "}K\x01"
      "a.",
      StatusCode::kInvalidArgument, {"APPEND"});
  Refused(
      ")K\x01"
      "a.",
      StatusCode::kInvalidArgument, {"APPEND"});
}

TEST(Pickle, Case28_ProtocolsOf0To5WithPlainData) {
  EXPECT_EQ(Shown("(I1\nI01\nF1.5\nS'a\\n\\'b'\nV\\u00e9\xe9\nL123456789L\nNt."),
            "(1, True, 1.500000, 'a\n'b', '\u00e9\u00e9', 123456789, None)");
  EXPECT_EQ(Shown("(lp0\nI1\nag0\n\x86."), "([1], [1])");
  EXPECT_EQ(Shown("(dp0\nS'k'\nI2\ns."), "{'k', 2}");
  EXPECT_EQ(Shown(BYTES("\x80\x03}q\x00X\x01\x00\x00\x00kq\x01"
                        "C\x02zz"
                        "s.")),
            "{'k', b'zz'}");
  EXPECT_EQ(Shown(BYTES("\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01k\x94K\x05s.")),
            "{'k', 5}");
  EXPECT_EQ(
      Shown(BYTES("\x80\x05\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x96\x02\x00\x00\x00\x00\x00\x00\x00"
                  "abN\x86\x94.")),
      "(b'ab', None)");
  Refused("\x80\x06N.", StatusCode::kUnimplemented, {"protocol 6"});
  Refused(BYTES("\x80\x04\x95\x03\x00\x00\x00\x00\x00\x00\x00N."), StatusCode::kInvalidArgument,
          {"FRAME of 3 bytes"});
  Refused(BYTES("\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN."), StatusCode::kInvalidArgument,
          {"FRAME"});
}

TEST(Pickle, Case29_OpcodesThatNoCheckpointNeeds) {
  const std::pair<std::string, const char*> cases[] = {{"\x97.", "NEXT_BUFFER"},
                                                       {"N\x98.", "READONLY_BUFFER"},
                                                       {"\x82\x01.", "EXT"},
                                                       {"\x83\x01\x01.", "EXT"},
                                                       {"\x84\x01\x01\x01\x01.", "EXT"},
                                                       {"(iposix\nsystem\n.", "INST"},
                                                       {"(cposix\nsystem\no.", "refused"},
                                                       {"(No.", "OBJ"},
                                                       {"Pid\n.", "PERSID"}};
  for (const auto& [bytes, word] : cases) {
    Refused(
        bytes,
        std::string(word) == "refused" ? StatusCode::kInvalidArgument : StatusCode::kUnimplemented,
        {word});
  }
  for (int op : {0x00, 0x01, 0x7f, 0x99, 0xff, int{'z'}}) {
    Refused(std::string(1, static_cast<char>(op)) + ".", StatusCode::kInvalidArgument,
            {"no such opcode"});
  }
}

TEST(Pickle, Case30_LengthsBeyondTheEnd) {
  const std::string cases[] = {"X" + Le(0xffffffff, 4) + "a.",
                               "T" + Le(0x7fffffff, 4) + "a.",
                               "B" + Le(0xfffffff0, 4) + "a.",
                               "\x8e" + Le(uint64_t{1} << 63, 8) + "a.",
                               "\x8d" + Le(~uint64_t{0}, 8) + "a.",
                               "\x96" + Le(uint64_t{1} << 62, 8) + "a.",
                               "X" + Le(3, 4) + "a.",
                               std::string("U\x03"
                                           "a."),
                               std::string("\x8c\xff"
                                           "a.")};
  for (const std::string& bytes : cases)
    Refused(bytes, StatusCode::kInvalidArgument, {"announces", "are left"});
}

TEST(Pickle, Case31_HugeInteger) {
  Refused("\x8b" + Le(uint64_t{2} << 30, 4) + "a.", StatusCode::kResourceExhausted,
          {"integer of 2147483648 bytes"});
  Refused("\x8b" + Le(256, 4) + std::string(256, '\1') + ".", StatusCode::kResourceExhausted,
          {"limit is 255"});
  Refused("L" + std::string(100000, '9') + "L\n.", StatusCode::kInvalidArgument,
          {"not an integer"});
}

TEST(Pickle, Case32_AMillionNestedLists) {
  AllowThisTest(2, 128);
  const int n = 1000000;
  Refused(std::string(n, ']') + std::string(n - 1, 'a') + ".", StatusCode::kResourceExhausted,
          {"nested deeper than 100"});
  Refused(std::string(n, '(') + std::string(n, 't') + ".", StatusCode::kResourceExhausted,
          {"nested deeper"});
  Refused(")" + std::string(n, '\x85') + ".", StatusCode::kResourceExhausted, {"nested deeper"});
  Refused(std::string(2 * n, '(') + ".", StatusCode::kResourceExhausted, {"marks"});
  Refused(std::string(2 * n, 'N') + ".", StatusCode::kResourceExhausted, {"stack"});
  std::string many = "](";
  for (int i = 0; i < n; ++i) many += "Na](";
  Refused(std::string(5 * n, ')') + ".", StatusCode::kResourceExhausted, {"limit"});
  // Nested as deep as is allowed.
  EXPECT_EQ(Shown(std::string(99, ']') + "N" + std::string(99, 'a') + ".").substr(0, 99),
            std::string(99, '['));
  Refused(std::string(100, ']') + "N" + std::string(100, 'a') + ".", StatusCode::kResourceExhausted,
          {"nested deeper"});
}

TEST(Pickle, Case32_ManyValues) {
  AllowThisTest(2, 320);
  // Each pair of bytes makes a list; the limit is met before the end of memory.
  std::string bytes;
  for (int i = 0; i < 3000000; ++i) bytes += "]0";
  Refused(bytes + "N.", StatusCode::kOk, {});
  for (int i = 0; i < 2000000; ++i) bytes += "]0";
  Refused(bytes + "N.", StatusCode::kResourceExhausted, {"4194304 values"});
  // References are values, too: one list, put into another again and again.
  bytes = "]q\x01]";
  std::string doubled = "(";
  for (int i = 0; i < 200000; ++i) doubled += "h\x01";
  for (int i = 0; i < 30; ++i) bytes += doubled + "e";
  Refused(bytes + ".", StatusCode::kResourceExhausted, {"values"});
}

TEST(Pickle, Case33_SixtyMemoDoublings) {
  std::string bytes = "N";
  for (int i = 0; i < 60; ++i) bytes += "2\x86";
  ASSERT_LT(bytes.size(), 300u);
  Refused(bytes + ".", StatusCode::kResourceExhausted, {"shared values"});
  bytes = "N";
  for (int i = 0; i < 60; ++i) bytes += "q" + Le(i, 1) + "h" + Le(i, 1) + "\x86";
  Refused(bytes + ".", StatusCode::kResourceExhausted, {"shared values"});
  // Doubling by APPENDS is sharing, too.
  bytes =
      "](K\x01K\x02"
      "e";
  for (int i = 0; i < 30; ++i) bytes += "q" + Le(i, 1) + "0](h" + Le(i, 1) + "h" + Le(i, 1) + "e";
  Refused(bytes + ".", StatusCode::kResourceExhausted, {"shared values"});
  // A set of a list, again and again, is that list.
  bytes = "c__builtin__\nset\nq\x01](" + std::string(100000, 'N') + "eq\x02";
  for (int i = 0; i < 1000; ++i) bytes += "0h\x01h\x02\x85R";
  Refused(bytes + "\x86.", StatusCode::kOk, {});
}

TEST(Pickle, WhatOthersWereMadeOfMayNotChange) {
  const std::string filled =
      "}q\x01U\x01"
      "aK\x01s";
  for (const std::string& bytes : {// The source changes, or what was made of it.
                                   filled + "0ccollections\nCounter\nh\x01\x85R0h\x01U\x01"
                                            "bK\x02s.",
                                   filled + "0ccollections\nOrderedDict\nh\x01\x85RU\x01"
                                            "bK\x02s.",
                                   std::string("](K\x01"
                                               "eq\x01"
                                               "0c__builtin__\nlist\nh\x01\x85R0h\x01K\x02"
                                               "a."),
                                   std::string("](K\x01"
                                               "eq\x01"
                                               "0ctorch\nSize\nh\x01\x85R0h\x01(K\x02"
                                               "e."),
                                   // The content of an object.
                                   filled + "0cargparse\nNamespace\n)\x81h\x01"
                                            "b0h\x01U\x01"
                                            "bK\x02s."}) {
    Refused(bytes, StatusCode::kInvalidArgument, {"changes after", "pickle byte"});
  }
  // Copies of pairs and of what is empty are copies.
  EXPECT_EQ(Shown("]q\x01(K\x01K\x02\x86"
                  "e0ccollections\nOrderedDict\nh\x01\x85Rh\x01K\x03"
                  "a\x86."),
            "({1, 2}, [(1, 2), 3])");
  EXPECT_EQ(Shown("}q\x01"
                  "0ccollections\nOrderedDict\nh\x01\x85Rh\x01K\x01K\x02s\x86."),
            "({}, {1, 2})");
  EXPECT_EQ(Shown("]q\x01"
                  "0ccollections\ndeque\nh\x01K\x05\x86RK\x01"
                  "ah\x01\x86."),
            "([1], [])");
}

TEST(Pickle, DequesHoldNoMoreThanTheirMaxlen) {
  const std::string deque = "ccollections\ndeque\n";
  EXPECT_EQ(Shown(deque + ")K\x02\x86R(K\x01K\x02"
                          "e."),
            "[1, 2]");
  EXPECT_EQ(Shown(deque + "](K\x01K\x02"
                          "eK\x02\x86R."),
            "[1, 2]");
  EXPECT_EQ(Shown(deque + ")N\x86RK\x01"
                          "a."),
            "[1]");
  // Python keeps the last.
  Refused(deque +
              ")K\x02\x86R(K\x01K\x02K\x03"
              "e.",
          StatusCode::kInvalidArgument, {"maxlen"});
  Refused(deque +
              "](K\x01K\x02"
              "eK\x01\x86R.",
          StatusCode::kInvalidArgument, {"deque"});
}

TEST(Pickle, ClassesAreFilledAsPythonFillsThem) {
  EXPECT_EQ(Shown("ccopy_reg\n_reconstructor\n(ccollections\nOrderedDict\nc__builtin__\ndict\n"
                  "}U\x01"
                  "aK\x01stR."),
            "{'a', 1}");
  Refused(
      "ccollections\nOrderedDict\n](K\x01K\x02\x86"
      "e\x85\x81.",
      StatusCode::kInvalidArgument, {"NEWOBJ"});
  Refused(
      "ccollections\nCounter\n](K\x01K\x02\x86"
      "e\x85R.",
      StatusCode::kInvalidArgument, {"Counter"});
  Refused(
      "cargparse\nNamespace\n)\x81K\x01"
      "b.",
      StatusCode::kInvalidArgument, {"BUILD"});
}

TEST(Pickle, Case34_AListThatContainsItself) {
  Refused(
      "]q\x01h\x01"
      "a.",
      StatusCode::kInvalidArgument, {"cycle"});
  Refused("}q\x01U\x01kh\x01s.", StatusCode::kInvalidArgument, {"cycle"});
  Refused(
      "]q\x01}q\x02U\x01k](h\x01\x85"
      "esa.",
      StatusCode::kInvalidArgument, {"cycle"});
  Refused("cargparse\nNamespace\n)\x81q\x01}U\x01kh\x01sb.", StatusCode::kInvalidArgument,
          {"cycle"});
  // In an object whose content nobody walks, a way back to the parent is no cycle.
  const Pickle p = Parse(
      "}q\x01U\x01k"
      "comegaconf.dictconfig\nDictConfig\n)\x81}U\x01ph\x01sbs.");
  EXPECT_EQ(p.kind(p.root()), Kind::kDict);
}

TEST(Pickle, Case35_HugeMemoIndex) {
  for (const std::string& bytes : {"Nr" + Le(0xffffffff, 4) + ".", std::string("Np4294967295\n."),
                                   "Nr" + Le(kMaxPickleMemo, 4) + "."}) {
    Refused(bytes, StatusCode::kResourceExhausted, {"memo index"});
  }
  Refused("Nj" + Le(0xffffffff, 4) + ".", StatusCode::kInvalidArgument, {"nothing in the memo"});
  Refused("Nh\x05.", StatusCode::kInvalidArgument, {"nothing in the memo at 5"});
  Refused("Np-1\n.", StatusCode::kInvalidArgument, {"memo index"});
  Refused("q\x01N.", StatusCode::kInvalidArgument, {"underflow"});
  EXPECT_EQ(Shown("Nr" + Le(kMaxPickleMemo - 1, 4) + "."), "None");
}

TEST(Pickle, Case36_StacksThatDoNotAddUp) {
  for (const char* bytes :
       {".", "0N.", "\x85.", "K\x01\x86.", "K\x01K\x02\x87.", "Na.", "NNs.", "R.", "NR.", "b.",
        "Nb.", "Q.", "2N.", "N\x81.", "NN\x92.", "N\x93.", "(a.", "](Na."}) {
    Refused(bytes, StatusCode::kInvalidArgument, {});
  }
  for (const char* bytes : {"t.", "Nt.", "]Ne.", "}Nu.", "l.", "d.", "1N."}) {
    Refused(bytes, StatusCode::kInvalidArgument, {"MARK"});
  }
  Refused("}(K\x01u.", StatusCode::kInvalidArgument, {"odd"});
  Refused("}(K\x01K\x02K\x03u.", StatusCode::kInvalidArgument, {"odd"});
  Refused(
      "(K\x01"
      "d.",
      StatusCode::kInvalidArgument, {"odd"});
}

TEST(Pickle, Case38_LeftoversOnTheStack) {
  Refused("NN.", StatusCode::kInvalidArgument, {"STOP with 2 values"});
  Refused("N(.", StatusCode::kInvalidArgument, {"1 marks"});
  EXPECT_EQ(Parse("N.junk").consumed_bytes(), 2);
}

TEST(Pickle, Case39_NoStop) {
  const std::string whole = FloatsPickle("w", 3);
  for (size_t n = 0; n < whole.size(); ++n) {
    auto pickle = ParsePickle(whole.substr(0, n), kPlace);
    // A string that is cut announces more than is left.
    EXPECT_TRUE(absl::IsDataLoss(pickle.status()) || absl::IsInvalidArgument(pickle.status())) << n;
  }
  Refused("", StatusCode::kDataLoss, {"without STOP"});
  Refused("N", StatusCode::kDataLoss, {"without STOP"});
  Refused("J\x01", StatusCode::kDataLoss, {"without STOP"});
  Refused("ctorch", StatusCode::kDataLoss, {"without STOP"});
}

TEST(Pickle, ALargePickleIsOverTheLimit) {
  AllowThisTest(2, 128);
  auto parse = [](const std::string& place) {
    return ParsePickle(std::string(kMaxPickleBytes + 1, 'N'), place);
  };
  ExpectRefusedFile(kPlace, 2 * kMaxPickleBytes, parse, StatusCode::kResourceExhausted,
                    {"bytes of pickle"});
}

TEST(Pickle, EveryGlobalIsListedOnce) {
  EXPECT_NE(FindPickleGlobal("torch._utils", "_rebuild_tensor_v2"), nullptr);
  EXPECT_EQ(FindPickleGlobal("torch._utils", "_rebuild_tensor_v2 "), nullptr);
  EXPECT_EQ(FindPickleGlobal("torch", ""), nullptr);
  EXPECT_EQ(FindPickleGlobal("", ""), nullptr);
}

}  // namespace
}  // namespace quire
