#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/tensor_source.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"
#include "convert/torch_zip_test_util.h"
#include "format/test_caps.h"

namespace quire {
namespace {

using absl::StatusCode;

TEST(TorchRebuild, Case41_ViewPastItsStorage) {
  Refused(ViewPickle("FloatStorage", 12, 0, {13}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "needs 52", "has 48"});
  Refused(ViewPickle("FloatStorage", 12, 10, {3}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"needs 52", "has 48"});
  Refused(ViewPickle("FloatStorage", 12, 0, {2, 2}, {11, 1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"needs 52", "has 48"});
  Refused(ViewPickle("FloatStorage", 12, 12, {}, {}), TwelveFloats(), StatusCode::kInvalidArgument,
          {"needs 52", "has 48"});
  ASSERT_NE(OpenBytes(TorchZipFile(ViewPickle("FloatStorage", 12, 11, {}, {}), TwelveFloats())),
            nullptr);
  ASSERT_NE(
      OpenBytes(TorchZipFile(ViewPickle("FloatStorage", 12, 0, {2, 2}, {10, 1}), TwelveFloats())),
      nullptr);
}

TEST(TorchRebuild, Case42_NegativeNumbers) {
  Refused(ViewPickle("FloatStorage", 12, -1, {1}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "-1"});
  Refused(ViewPickle("FloatStorage", 12, 0, {-3}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "-3"});
  Refused(ViewPickle("FloatStorage", 12, 6, {3}, {-2}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "-2"});
  Refused(ViewPickle("FloatStorage", -12, 0, {3}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "-12"});
}

TEST(TorchRebuild, Case43_Overflow) {
  const int64_t big = int64_t{1} << 62;
  Refused(ViewPickle("FloatStorage", 12, 0, {big, 8}, {0, 0}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "overflow"});
  Refused(ViewPickle("FloatStorage", 12, 0, {2, 2}, {big, big}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "overflow"});
  Refused(ViewPickle("FloatStorage", 12, 0, {5}, {big}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "overflow"});
  Refused(ViewPickle("FloatStorage", 12, big, {1}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'"});
  Refused(ViewPickle("FloatStorage", 12, (int64_t{1} << 61) - 1, {4}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'"});
  Refused(ViewPickle("DoubleStorage", big, 0, {1}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'"});
}

TEST(TorchRebuild, Case44_StrideZeroOverFourBytes) {
  const Storages one = {{"0", FloatsData(1)}};
  Refused(ViewPickle("FloatStorage", 1, 0, {int64_t{1} << 40}, {0}), one,
          StatusCode::kResourceExhausted, {"'w'", "repeats a storage of 4"});
  Refused(ViewPickle("FloatStorage", 1, 0, {1 << 20, 1 << 20}, {0, 0}), one,
          StatusCode::kResourceExhausted, {"'w'", "repeats"});
  const auto source =
      OpenBytes(TorchZipFile(ViewPickle("FloatStorage", 1, 0, {1 << 20}, {0}), one));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Floats(*source, 0), std::vector<float>(1 << 20, 0.0f));
}

TEST(TorchRebuild, Case45_ZeroDimensionBesideAHugeOne) {
  const int64_t big = int64_t{1} << 62;
  // In bytes, the product of the other dimensions overflows.
  Refused(ViewPickle("FloatStorage", 12, 0, {big, 0}, {0, 1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "overflow"});
  Refused(ViewPickle("FloatStorage", 12, 0, {big, 4, 0}, {0, 0, 0}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "overflow"});
  const auto source = OpenBytes(TorchZipFile(ViewPickle("ByteStorage", 12, 7, {0, big}, {big, big}),
                                             {{"0", std::string(12, 'b')}}));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->tensors()[0].elements(), 0);
  EXPECT_TRUE(source->Read(0, 0, 0, {}).ok());
}

TEST(TorchRebuild, Case46_MalformedShapes) {
  AllowThisTest(2, 128);  // of a million dimensions
  Refused(ViewPickle("FloatStorage", 12, 0, std::vector<int64_t>(1000000, 1), {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "1000000 dimensions"});
  Refused(ViewPickle("FloatStorage", 12, 0, {3, 4}, {1}), TwelveFloats(),
          StatusCode::kInvalidArgument, {"'w'", "2 dimensions, 1 strides"});
  const auto with = [](const std::string& offset, const std::string& shape,
                       const std::string& rest) {
    return Pickler()
        .Proto(2)
        .Dict()
        .Str("w")
        .Global("torch._utils", "_rebuild_tensor_v2")
        .Mark()
        .Storage("FloatStorage", "0", 12)
        .Raw(offset + shape + rest)
        .Tuple()
        .Reduce()
        .SetItem()
        .Stop();
  };
  const std::string real("G\x40\x00\x00\x00\x00\x00\x00\x00", 9),
      hooks =
          "\x89"
          "ccollections\nOrderedDict\n)R";
  ASSERT_NE(OpenBytes(TorchZipFile(with("K\1", "K\3\x85K\1\x85", hooks), TwelveFloats())), nullptr);
  for (const auto& [offset, shape] :
       std::vector<std::pair<std::string, std::string>>{{real, "K\3\x85K\1\x85"},
                                                        {"K\1", real + "\x85K\1\x85"},
                                                        {"K\1", "K\3\x85" + real + "\x85"},
                                                        {"K\1", "K\3K\1\x85"},
                                                        {"K\1", "K\3\x85N"},
                                                        {"N", "K\3\x85K\1\x85"},
                                                        {"K\1", "\x88\x85K\1\x85"},
                                                        {"K\1", "}}"},
                                                        {"K\1", "](K\3eK\1\x85"},
                                                        {"K\1", "K\3\x85](K\1e"}}) {
    Refused(with(offset, shape, hooks), TwelveFloats(), StatusCode::kInvalidArgument, {"'w'"});
  }
  for (const std::string& rest : {std::string("\x89"), hooks + "NN", hooks + "K\1"}) {
    Refused(with("K\1", "K\3\x85K\1\x85", rest), TwelveFloats(), StatusCode::kInvalidArgument,
            {"'w'"});
  }
  // A storage that is none, or not described as torch does.
  for (const std::string& storage : {std::string("K\1"), std::string("NQ"), std::string(")Q"),
                                     std::string("(U\7storageK\1K\2K\3K\4tQ"),
                                     Pickler()
                                         .Mark()
                                         .Str("module")
                                         .Global("torch", "FloatStorage")
                                         .Str("0")
                                         .Str("cpu")
                                         .Int(3)
                                         .Tuple()
                                         .Raw("Q")
                                         .bytes(),
                                     Pickler()
                                         .Mark()
                                         .Str("storage")
                                         .Global("torch", "float32")
                                         .Str("0")
                                         .Str("cpu")
                                         .Int(3)
                                         .Tuple()
                                         .Raw("Q")
                                         .bytes()}) {
    Refused(Pickler()
                .Proto(2)
                .Dict()
                .Str("w")
                .Global("torch._utils", "_rebuild_tensor_v2")
                .Mark()
                .Raw(storage)
                .View(0, {3}, {1})
                .Tuple()
                .Reduce()
                .SetItem()
                .Stop(),
            TwelveFloats(), StatusCode::kInvalidArgument, {"'w'", "storage"});
  }
}

TEST(TorchRebuild, PersistentIdsOutsideOfTensors) {
  Refused(Pickler().Proto(2).Raw("](").Storage("FloatStorage", "0", 12).Raw("NQe").Stop(),
          TwelveFloats(), StatusCode::kInvalidArgument,
          {": persistent id 2: a storage that is not one"});
}

TEST(TorchRebuild, Case47_RecordUnlikeItsElements) {
  for (int elements : {0, 3, 11, 13, 1 << 20}) {
    Refused(ViewPickle("FloatStorage", elements, 0, {0}, {1}), TwelveFloats(),
            StatusCode::kInvalidArgument, {"x/data/0", "48 bytes", absl::StrCat(4 * elements)});
  }
  Refused(ViewPickle("HalfStorage", 12, 0, {12}, {1}), TwelveFloats(), StatusCode::kInvalidArgument,
          {"x/data/0", "48", "24"});
}

TEST(TorchRebuild, Case48_OneStorageTwoTypes) {
  const auto pickle = [](const std::string& type, int elements) {
    return Pickler()
        .Proto(2)
        .Dict()
        .Str("a")
        .Tensor("FloatStorage", "0", 12, 0, {3}, {1})
        .SetItem()
        .Str("b")
        .Tensor(type, "0", elements, 0, {3}, {1})
        .SetItem()
        .Stop();
  };
  Refused(pickle("IntStorage", 12), TwelveFloats(), StatusCode::kInvalidArgument,
          {"'b'", "int32", "float32"});
  Refused(pickle("HalfStorage", 24), TwelveFloats(), StatusCode::kInvalidArgument,
          {"'b'", "float16", "float32"});
  Refused(pickle("FloatStorage", 11), TwelveFloats(), StatusCode::kInvalidArgument,
          {"'b'", "11", "12"});
  ASSERT_NE(OpenBytes(TorchZipFile(pickle("FloatStorage", 12), TwelveFloats())), nullptr);
}

TEST(TorchRebuild, Case49_MissingStorage) {
  Refused(FloatsPickle("w", 12), {}, StatusCode::kNotFound, {"x/data/0"});
  Refused(FloatsPickle("w", 12), {{"1", FloatsData(12)}}, StatusCode::kNotFound, {"x/data/0"});
  Refused(Pickler().Proto(2).Tensor("FloatStorage", "../version", 2, 0, {2}, {1}).Stop(), {},
          StatusCode::kNotFound, {"x/data/../version"});
}

TEST(TorchRebuild, Case50_TransposedAndOverlappingViews) {
  Pickler p;
  p.Proto(2).Dict();
  p.Str("t").Tensor("FloatStorage", "0", 12, 0, {4, 3}, {1, 4}).SetItem();
  p.Str("o").Tensor("FloatStorage", "0", 12, 2, {3, 4}, {2, 1}).SetItem();
  p.Str("e").Tensor("FloatStorage", "0", 12, 5, {2, 3}, {0, 0}).SetItem();
  const auto source = OpenBytes(TorchZipFile(p.Stop(), TwelveFloats()));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  EXPECT_EQ(Floats(*source, 1), (std::vector<float>{2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9}));
  EXPECT_EQ(Floats(*source, 2), std::vector<float>(6, 5.0f));
}

TEST(TorchRebuild, Case51_TiedWeights) {
  Pickler p;
  p.Proto(2).Dict();
  p.Str("embed").Tensor("FloatStorage", "0", 12, 0, {3, 4}, {4, 1}).SetItem();
  p.Str("head").Tensor("FloatStorage", "0", 12, 0, {3, 4}, {4, 1}).SetItem();
  p.Str("flat").Tensor("FloatStorage", "0", 12, 0, {12}, {1}).SetItem();
  p.Str("tail").Tensor("FloatStorage", "0", 12, 4, {2, 4}, {4, 1}).SetItem();
  p.Str("none").Tensor("FloatStorage", "0", 12, 0, {0}, {1}).SetItem();
  p.Str("none2").Tensor("FloatStorage", "0", 12, 0, {0}, {1}).SetItem();
  p.Str("tail2").Tensor("FloatStorage", "0", 12, 4, {2, 4}, {4, 1}).SetItem();
  const auto source = OpenBytes(TorchZipFile(p.Stop(), TwelveFloats()));
  ASSERT_NE(source, nullptr);
  EXPECT_GE(source->Alias(0), 0);
  EXPECT_EQ(source->Alias(0), source->Alias(1));
  EXPECT_EQ(source->Alias(2), -1);
  EXPECT_GE(source->Alias(3), 0);
  EXPECT_NE(source->Alias(3), source->Alias(0));
  EXPECT_EQ(source->Alias(4), -1);
  EXPECT_EQ(source->Alias(5), -1);
  EXPECT_EQ(source->Alias(6), source->Alias(3));
}

// {"a": {"w": a call of module.name}}
std::string CallPickle(const std::string& module, const std::string& name,
                       const std::string& arguments) {
  return Pickler()
      .Proto(2)
      .Dict()
      .Str("a")
      .Dict()
      .Str("w")
      .Global(module, name)
      .Raw(arguments)
      .Reduce()
      .SetItem()
      .SetItem()
      .Stop();
}

TEST(TorchRebuild, Case52_Sparse) {
  Refused(CallPickle("torch._utils", "_rebuild_sparse_tensor", ")"), {}, StatusCode::kUnimplemented,
          {"'a.w'", "sparse"});
}

TEST(TorchRebuild, Case53_ConjugateAndNegativeBits) {
  for (const char* bit : {"conj", "neg"}) {
    Pickler p;
    p.Proto(2)
        .Dict()
        .Str("w")
        .Global("torch._utils", "_rebuild_tensor_v2")
        .Mark()
        .Storage("FloatStorage", "0", 12)
        .View(0, {3}, {1});
    Refused(p.bytes() + Pickler().Dict().Str(bit).Raw("\x88stRs.").bytes(), TwelveFloats(),
            StatusCode::kUnimplemented, {"'w'", bit});
    // The bit is named, and not set.
    EXPECT_NE(OpenBytes(TorchZipFile(p.bytes() + Pickler().Dict().Str(bit).Raw("\x89stRs.").bytes(),
                                     TwelveFloats())),
              nullptr);
    EXPECT_NE(OpenBytes(TorchZipFile(p.bytes() + "NtRs.", TwelveFloats())), nullptr);
    Refused(p.bytes() + "K\1tRs.", TwelveFloats(), StatusCode::kInvalidArgument,
            {"'w'", "metadata"});
  }
}

// _rebuild_tensor_v3 of 12 bytes as six elements of a type.
std::string V3Pickle(const std::string& dtype, int64_t elements) {
  return Pickler()
      .Proto(2)
      .Dict()
      .Str("w")
      .Global("torch._utils", "_rebuild_tensor_v3")
      .Mark()
      .Mark()
      .Str("storage")
      .Global("torch.storage", "UntypedStorage")
      .Str("0")
      .Str("cpu")
      .Int(12)
      .Tuple()
      .Raw("Q")
      .View(0, {elements}, {1})
      .Global("torch", dtype)
      .Tuple()
      .Reduce()
      .SetItem()
      .Stop();
}

TEST(TorchRebuild, Case54_ElementTypes) {
  const Storages bytes = {{"0", std::string(12, '\x7c')}};
  for (const auto& [dtype, elements] :
       std::vector<std::pair<std::string, int64_t>>{{"float8_e4m3fn", 12},
                                                    {"float8_e5m2", 12},
                                                    {"uint16", 6},
                                                    {"uint32", 3},
                                                    {"uint64", 1},
                                                    {"bfloat16", 6},
                                                    {"complex64", 1},
                                                    {"bool", 12}}) {
    const auto source = OpenBytes(TorchZipFile(V3Pickle(dtype, elements), bytes));
    ASSERT_NE(source, nullptr) << dtype;
    EXPECT_EQ(Info(source->tensors()[0].dtype).name, dtype);
    Refused(V3Pickle(dtype, elements + 1), bytes, StatusCode::kInvalidArgument, {"'w'", "needs"});
  }
  for (const char* dtype : {"float8_e4m3fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2", "complex32",
                            "quint8", "int4", "bits8"}) {
    Refused(V3Pickle(dtype, 1), bytes, StatusCode::kUnimplemented, {"'w'", dtype});
  }
  Refused(CallPickle("torch._utils", "_rebuild_qtensor", ")"), {}, StatusCode::kUnimplemented,
          {"'a.w'", "quantized"});
  Refused(ViewPickle("QUInt8Storage", 12, 0, {12}, {1}), bytes, StatusCode::kUnimplemented,
          {"'w'", "quint8"});
  // Untyped bytes without a dtype to go by, and a dtype that is none.
  Refused(Pickler()
              .Proto(2)
              .Dict()
              .Str("w")
              .Global("torch._utils", "_rebuild_tensor_v2")
              .Mark()
              .Mark()
              .Str("storage")
              .Global("torch.storage", "UntypedStorage")
              .Str("0")
              .Str("cpu")
              .Int(12)
              .Tuple()
              .Raw("Q")
              .View(0, {3}, {1})
              .Tuple()
              .Reduce()
              .SetItem()
              .Stop(),
          bytes, StatusCode::kInvalidArgument, {"'w'", "dtype"});
  Refused(V3Pickle("FloatStorage", 1), bytes, StatusCode::kInvalidArgument, {"'w'", "dtype"});
}

TEST(TorchRebuild, Case55_OtherKindsOfTensors) {
  Refused(CallPickle("torch._utils", "_rebuild_nested_tensor", ")"), {}, StatusCode::kUnimplemented,
          {"'a.w'", "nested"});
  Refused(CallPickle("torch._utils", "_rebuild_meta_tensor_no_storage", ")"), {},
          StatusCode::kUnimplemented, {"'a.w'", "meta"});
  Refused(CallPickle("torch._utils", "_rebuild_wrapper_subclass", ")"), {},
          StatusCode::kUnimplemented, {"wrapper-subclass"});
  Refused(CallPickle("torch.distributed.tensor", "DTensor", ")"), {}, StatusCode::kUnimplemented,
          {"distributed"});
  // As a subclass pickles: the class behind the function is known to nobody.
  Refused(CallPickle("torch._tensor", "_rebuild_from_type_v2",
                     "ctorch._utils\n_rebuild_wrapper_subclass\ncmine\nTensor\n)}t"),
          {}, StatusCode::kUnimplemented, {"wrapper-subclass"});
  Refused(CallPickle("torch._tensor", "_rebuild_from_type_v2",
                     "(ctorch._utils\n_rebuild_tensor_v2\ncmine\nTensor\n)}t"),
          {}, StatusCode::kInvalidArgument, {"mine Tensor"});
  Refused(Pickler()
              .Proto(2)
              .Dict()
              .Str("w")
              .Global("torch._utils", "_rebuild_tensor_v2")
              .Mark()
              .Mark()
              .Str("storage")
              .Global("torch", "FloatStorage")
              .Str("0")
              .Str("meta")
              .Int(12)
              .Tuple()
              .Raw("Q")
              .View(0, {3}, {1})
              .Tuple()
              .Reduce()
              .SetItem()
              .Stop(),
          TwelveFloats(), StatusCode::kUnimplemented, {"'w'", "meta"});
}

TEST(TorchRebuild, Case56_ParametersAndOrderedDicts) {
  const std::string tensor = Pickler().Tensor("FloatStorage", "0", 12, 0, {3}, {1}).bytes();
  const std::string hooks = "ccollections\nOrderedDict\n)R";
  Pickler p;
  p.Proto(2).Global("collections", "OrderedDict").Raw(")R").Mark();
  p.Str("a").Global("torch._utils", "_rebuild_parameter").Raw(tensor + "\x88" + hooks + "\x87R");
  p.Str("b")
      .Global("torch._utils", "_rebuild_parameter_with_state")
      .Raw("(" + tensor + "\x88" + hooks + "}U\1aK\1stR");
  p.Str("c").Global("torch.nn.parameter", "Parameter").Raw(tensor + "\x89\x86\x81");
  p.Str("d")
      .Global("torch._tensor", "_rebuild_from_type_v2")
      .Mark()
      .Global("torch._utils", "_rebuild_tensor_v2")
      .Global("torch", "Tensor")
      .Mark()
      .Storage("FloatStorage", "0", 12)
      .View(0, {3}, {1})
      .Tuple()
      .Raw("}tR");
  p.Str("e")
      .Global("torch._utils", "_rebuild_tensor")
      .Mark()
      .Storage("FloatStorage", "0", 12)
      .Int(0)
      .Ints({3})
      .Ints({1})
      .Raw("tR");
  p.Raw("u}U\x09_metadata" + hooks + "sb");  // attributes of the OrderedDict are left out
  const std::string pickle = p.Stop();
  const auto source = OpenBytes(TorchZipFile(pickle, TwelveFloats()));
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->tensors().size(), 5u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(source->tensors()[i].name, std::string(1, 'a' + i));
    EXPECT_EQ(Floats(*source, i), (std::vector<float>{0, 1, 2}));
    EXPECT_EQ(source->Alias(i), source->Alias(0));
  }
  for (const char* arguments : {")", "K\1\x85", "}\x85"}) {
    Refused(CallPickle("torch._utils", "_rebuild_parameter", arguments), {},
            StatusCode::kInvalidArgument, {"'a.w'", "Parameter"});
  }
  for (const char* arguments : {")", "NNNN", "(ctorch\nTensor\nctorch\nTensor\n)}t",
                                "(ctorch._utils\n_rebuild_tensor_v2\nK\1)}t"}) {
    Refused(CallPickle("torch._tensor", "_rebuild_from_type_v2",
                       std::string(arguments) == "NNNN" ? "(NNNNt" : arguments),
            {}, StatusCode::kInvalidArgument, {"'a.w'"});
  }
}

}  // namespace
}  // namespace quire
