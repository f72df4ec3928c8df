#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/tar_reader.h"
#include "convert/tensor_source.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"

namespace quire {
namespace {

using absl::StatusCode;

void Refused(const std::string& bytes, StatusCode code, const std::vector<std::string>& words) {
  ExpectRefused(bytes, OpenTorchLegacy, code, words);
}

std::vector<float> Floats(const TensorSource& source, int index) {
  std::vector<float> out(source.tensors()[index].elements());
  const auto bytes = absl::MakeSpan(reinterpret_cast<uint8_t*>(out.data()), 4 * out.size());
  const absl::Status s = source.Read(index, 0, out.size(), bytes);
  EXPECT_TRUE(s.ok()) << s;
  return out;
}

std::unique_ptr<TensorSource> OpenBytes(const std::string& bytes) {
  auto source = OpenTorchLegacy(WriteTestFile(bytes));
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *std::move(source) : nullptr;
}

// {"w": a tensor of a view of storage "7"}, the view being elements [offset, offset + size).
std::string ViewObject(int64_t elements, int64_t offset, int64_t size, int64_t tensor_elements) {
  Pickler p;
  p.Proto(2).Dict().Str("w").Global("torch._utils", "_rebuild_tensor_v2").Mark();
  p.Mark().Str("storage").Global("torch", "FloatStorage").Str("7").Str("cpu").Int(elements);
  p.Mark().Str("view").Int(offset).Int(size).Tuple().Tuple().Raw("Q");
  return p.View(0, {tensor_elements}, {1}).Tuple().Reduce().SetItem().Stop();
}

const std::string kObject = FloatsPickle("w", 5);

TEST(TorchLegacy, ReadsAnOrdinaryFile) {
  const auto source = OpenBytes(LegacyFile(kObject, {"0"}, {{5, FloatsData(5)}}));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->container(), "torch-legacy");
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{0, 1, 2, 3, 4}));
  EXPECT_TRUE(source->Verify(0).ok());
}

TEST(TorchLegacy, ReadsALargePickle) {
  Pickler p;
  p.Proto(2).Dict().Mark();
  for (int i = 0; i < 20000; ++i) p.Str(absl::StrCat("key", i)).Int(i);
  p.Str("w").Tensor("FloatStorage", "0", 5, 0, {5}, {1});
  const auto source = OpenBytes(LegacyFile(p.Raw("u").Stop(), {"0"}, {{5, FloatsData(5)}}));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->metadata().size(), 20000u);
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{0, 1, 2, 3, 4}));
}

TEST(TorchLegacy, Case21_WrongMagicOrProtocol) {
  const std::string good = LegacyFile(kObject, {"0"}, {{5, FloatsData(5)}});
  std::string bad = good;
  bad[5] ^= 1;
  Refused(bad, StatusCode::kInvalidArgument, {"magic number"});
  Refused("N.", StatusCode::kInvalidArgument, {"magic number"});
  Refused(FloatsPickle("w", 3), StatusCode::kInvalidArgument, {"magic number"});
  bad = good;
  bad[bad.find("M\xe9\x03") + 1] ^= 1;
  Refused(bad, StatusCode::kInvalidArgument, {"protocol version", "1001"});
  bad = good;
  bad[bad.find("little_endian\x88") + 13] = '\x89';
  Refused(bad, StatusCode::kUnimplemented, {"big-endian"});
  bad[bad.find("little_endian")] = 'L';
  Refused(bad, StatusCode::kInvalidArgument, {"little_endian"});
}

TEST(TorchLegacy, Case22_EndInsideAStorage) {
  const std::string good = LegacyFile(kObject, {"0"}, {{5, FloatsData(5)}});
  for (size_t cut = 1; cut < 28; ++cut) {
    Refused(good.substr(0, good.size() - cut), StatusCode::kDataLoss, {"storage '0'", "file ends"});
  }
  for (size_t size = 0; size < good.size() - 28; ++size) {
    auto source = OpenTorchLegacy(WriteTestFile(good.substr(0, size)));
    EXPECT_FALSE(source.ok());
  }
  Refused(good + "x", StatusCode::kInvalidArgument, {"1 trailing bytes"});
  Refused(LegacyFile(kObject, {"0"}, {{6, FloatsData(6)}}), StatusCode::kInvalidArgument,
          {"6 elements here, 5"});
  Refused(LegacyFile(kObject, {"0"}, {{-1, FloatsData(5)}}), StatusCode::kInvalidArgument,
          {"-1 elements"});
  const std::string huge = Pickler()
                               .Proto(2)
                               .Dict()
                               .Str("w")
                               .Tensor("FloatStorage", "0", int64_t{1} << 60, 0, {5}, {1})
                               .SetItem()
                               .Stop();
  Refused(LegacyFile(huge, {"0"}, {{int64_t{1} << 60, FloatsData(5)}}), StatusCode::kDataLoss,
          {"storage '0'"});
}

TEST(TorchLegacy, KeysAndStoragesMustAgree) {
  Refused(LegacyFile(kObject, {}, {}), StatusCode::kNotFound, {"storage '0'"});
  Refused(LegacyFile(kObject, {"1"}, {{5, FloatsData(5)}}), StatusCode::kInvalidArgument,
          {"storage '1'", "no tensor"});
  Refused(LegacyFile(kObject, {"0", "0"}, {{5, FloatsData(5)}, {5, FloatsData(5)}}),
          StatusCode::kInvalidArgument, {"storage '0'", "twice"});
}

TEST(TorchLegacy, Case23_StorageViewOutsideItsRoot) {
  const auto source = OpenBytes(LegacyFile(ViewObject(5, 2, 3, 3), {"7"}, {{5, FloatsData(5)}}));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{2, 3, 4}));
  for (const auto& [offset, size] : std::vector<std::pair<int64_t, int64_t>>{
           {3, 3}, {6, 0}, {-1, 3}, {2, -1}, {0, int64_t{1} << 62}, {int64_t{1} << 62, 1}}) {
    Refused(LegacyFile(ViewObject(5, offset, size, 0), {"7"}, {{5, FloatsData(5)}}),
            StatusCode::kInvalidArgument, {"'w'", "view", absl::StrCat(offset)});
  }
  // Inside of the root, outside of the view.
  Refused(LegacyFile(ViewObject(5, 1, 3, 4), {"7"}, {{5, FloatsData(5)}}),
          StatusCode::kInvalidArgument, {"'w'", "needs 16", "has 12"});
}

// {"a": of a view of storage "7", "b": of one of another storage or another view}.
std::string TwoViews(const std::string& key_a, int64_t offset_a, const std::string& root_b,
                     const std::string& key_b, int64_t offset_b) {
  Pickler p;
  p.Proto(2).Dict();
  auto add = [&p](const char* name, const std::string& root, const std::string& key,
                  int64_t offset) {
    p.Str(name).Global("torch._utils", "_rebuild_tensor_v2").Mark();
    p.Mark().Str("storage").Global("torch", "FloatStorage").Str(root).Str("cpu").Int(5);
    p.Mark().Str(key).Int(offset).Int(2).Tuple().Tuple().Raw("Q");
    p.View(0, {2}, {1}).Tuple().Reduce().SetItem();
  };
  add("a", "7", key_a, offset_a);
  add("b", root_b, key_b, offset_b);
  return p.Stop();
}

TEST(TorchLegacy, Case23_OneKeyForTwoStorageViews) {
  const auto source =
      OpenBytes(LegacyFile(TwoViews("v", 1, "7", "v", 1), {"7"}, {{5, FloatsData(5)}}));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Floats(*source, 1), (std::vector<float>{1, 2}));
  for (const std::string& object :
       {TwoViews("v", 1, "7", "v", 2), TwoViews("v", 1, "8", "v", 1), TwoViews("7", 1, "7", "w", 2),
        TwoViews("v", 1, "8", "7", 1), TwoViews("8", 1, "8", "w", 1)}) {
    Refused(LegacyFile(object, {"7", "8"}, {{5, FloatsData(5)}, {5, FloatsData(5)}}),
            StatusCode::kInvalidArgument, {"tensor", "the key", "view", "too"});
  }
}

TEST(TorchLegacy, Case24_SystemIsNeverRun) {
  Refused(LegacyFile(Pickler().Proto(2).Global("posix", "system").Str("true").Raw("\x85R").Stop(),
                     {}, {}),
          StatusCode::kInvalidArgument, {"posix system"});
  Refused("cposix\nsystem\n(S'true'\ntR.", StatusCode::kInvalidArgument, {"posix system"});
}

TEST(TorchLegacy, AFrameEndsWithItsPickle) {
  const auto framed = [](uint64_t more) {
    const std::string opcodes = FloatsPickle("w", 1000).substr(2);
    return LegacyFile("\x80\x04\x95" + Le(opcodes.size() + more, 8) + opcodes, {"0"},
                      {{1000, FloatsData(1000)}});
  };
  const auto source = OpenBytes(framed(0));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Floats(*source, 0)[999], 999.0f);
  Refused(framed(2000), StatusCode::kInvalidArgument, {"FRAME", "behind its STOP"});
}

// A tar archive; `type` and `size_field` of the header are as given.
std::string TarMemberBytes(const std::string& name, const std::string& data, char type = '0',
                           std::string size_field = "") {
  std::string header(512, '\0');
  header.replace(0, name.size(), name);
  char octal[13];
  snprintf(octal, sizeof octal, "%011o ", static_cast<unsigned>(data.size()));
  if (size_field.empty()) size_field = octal;
  header.replace(124, 12, size_field);
  header[156] = type;
  header.replace(257, 8, std::string("ustar\00000", 8));
  header.replace(148, 8, "        ");
  unsigned sum = 0;
  for (unsigned char c : header) sum += c;
  char checksum[9];
  snprintf(checksum, sizeof checksum, "%06o", sum);
  header.replace(148, 7, std::string(checksum, 7));
  return header + data + std::string((512 - data.size() % 512) % 512, '\0');
}

// The three members that matter, of one tensor of five floats.
std::string TarFile(int64_t storage_offset, int64_t view_elements, const std::string& more = "") {
  std::string storages = Pickler().Proto(2).Int(1).Stop();
  storages +=
      Pickler().Proto(2).Int(9).Str("cpu").Global("torch", "FloatStorage").Raw("\x87").Stop();
  storages += Le(5, 8) + FloatsData(5);
  storages +=
      Pickler().Proto(2).Raw("](").Ints({11, 9, storage_offset, view_elements}).Raw("e").Stop();
  std::string tensors = Pickler().Proto(2).Int(1).Stop();
  tensors += Pickler().Proto(2).Int(100).Int(11).Global("torch", "FloatTensor").Raw("\x87").Stop();
  tensors += Le(1, 4) + Le(0, 4) + Le(2, 8) + Le(1, 8) + Le(0, 8);
  const std::string object = Pickler().Proto(2).Dict().Str("w").Int(100).Raw("Qs").Stop();
  return more + TarMemberBytes("pickle", object) + TarMemberBytes("tensors", tensors) +
         TarMemberBytes("storages", storages) + std::string(1024, '\0');
}

TEST(TorchTar, ReadsAnOrdinaryFile) {
  const auto source = OpenBytes(TarFile(1, 3));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->container(), "torch-tar");
  ASSERT_EQ(source->tensors().size(), 1u);
  EXPECT_EQ(source->tensors()[0].name, "w");
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{1, 2}));
}

TEST(TorchTar, Case20_LinksAndSpecialFiles) {
  for (char type : {'1', '2', '3', '4', '5', '6', '7'}) {
    Refused(TarFile(1, 3, TarMemberBytes("storages", "", type)), StatusCode::kInvalidArgument,
            {"storages", "regular files"});
  }
}

TEST(TorchTar, Case20_Sizes) {
  // Base-256: -1, -512, 2^62.
  Refused(TarFile(1, 3, TarMemberBytes("x", "", '0', std::string(12, '\xff'))),
          StatusCode::kInvalidArgument, {"'x'", "size"});
  Refused(
      TarFile(1, 3,
              TarMemberBytes("x", "", '0', std::string(10, '\xff') + std::string("\xfe\x00", 2))),
      StatusCode::kInvalidArgument, {"'x'", "size"});
  Refused(TarFile(1, 3,
                  TarMemberBytes("x", "", '0',
                                 "\x80" + std::string(3, '\0') + "\x40" + std::string(7, '\0'))),
          StatusCode::kInvalidArgument, {"'x'", "size"});
  Refused(TarFile(1, 3,
                  TarMemberBytes("x", "", '0',
                                 "\x80" + std::string(6, '\0') + "\x40" + std::string(4, '\0'))),
          StatusCode::kDataLoss, {"'x'"});
  Refused(TarFile(1, 3, TarMemberBytes("x", "", '0', "77777777777 ")), StatusCode::kDataLoss,
          {"'x'", "8589934591"});
  Refused(TarFile(1, 3, TarMemberBytes("x", "", '0', "-0000000001 ")), StatusCode::kInvalidArgument,
          {"'x'", "size"});
  Refused(TarFile(1, 3,
                  TarMemberBytes("x", "", 'x') + TarMemberBytes("y", "20 size=1000000000\n", 'x')),
          StatusCode::kUnimplemented, {"'y'", "size"});
}

TEST(TorchTar, MembersMustBeThere) {
  Refused(TarMemberBytes("pickle", "N.") + std::string(1024, '\0'), StatusCode::kNotFound,
          {"storages"});
  Refused(TarFile(1, 3, TarMemberBytes("pickle", "N.")), StatusCode::kInvalidArgument,
          {"'pickle'", "second"});
  std::string bad = TarFile(1, 3);
  Refused(bad.substr(0, bad.size() - 1024), StatusCode::kDataLoss, {"cut short"});
  bad[0] = 'q';
  Refused(bad, StatusCode::kInvalidArgument, {"checksum"});
  std::string many;
  for (int i = 0; i < 100; ++i) many += TarMemberBytes(absl::StrCat(i), "");
  Refused(many, StatusCode::kResourceExhausted, {"members"});
}

TEST(TorchTar, Case23_StorageViewOutsideItsRoot) {
  Refused(TarFile(3, 3), StatusCode::kInvalidArgument, {"view of elements 3 to 3 + 3"});
  Refused(TarFile(-1, 3), StatusCode::kInvalidArgument, {"view of elements -1"});
  Refused(TarFile(4, 1), StatusCode::kInvalidArgument, {"needs 8", "has 4"});
}

TEST(TorchTar, EveryCutAndEveryFlippedByteIsRefusedOrRead) {
  const std::string bytes = TarFile(1, 3);
  for (size_t i = 0; i < bytes.size(); i += 7) {
    std::string damaged = bytes;
    damaged[i] ^= 1 << (i % 8);
    auto source = OpenTorchLegacy(WriteTestFile(damaged));
    for (size_t t = 0; source.ok() && t < (*source)->tensors().size(); ++t) {
      EXPECT_LE(Floats(**source, t).size(), 5u);
    }
  }
}

}  // namespace
}  // namespace quire
