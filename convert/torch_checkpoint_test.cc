#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/tensor_source.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"
#include "convert/torch_zip_test_util.h"

namespace quire {
namespace {

using absl::StatusCode;

void EntriesRefused(const std::vector<ZipEntry>& entries, StatusCode code,
                    const std::vector<std::string>& words) {
  ExpectRefused(BuildZip(entries), OpenTorchZip, code, words);
}

std::vector<ZipEntry> GoodEntries() {
  return TorchEntries(FloatsPickle("w", 3), {{"0", FloatsData(3)}});
}

ZipEntry* Find(std::vector<ZipEntry>* entries, const std::string& name) {
  for (ZipEntry& e : *entries) {
    if (e.name == name) return &e;
  }
  return nullptr;
}

TEST(TorchZip, ReadsAnOrdinaryFile) {
  const auto source = OpenBytes(BuildZip(GoodEntries()));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->container(), "torch-zip");
  ASSERT_EQ(source->tensors().size(), 1u);
  EXPECT_EQ(source->tensors()[0].name, "w");
  EXPECT_EQ(source->tensors()[0].dtype, DType::kF32);
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{0, 1, 2}));
  EXPECT_TRUE(source->Verify(0).ok());
  EXPECT_EQ(source->Alias(0), -1);
  ASSERT_EQ(source->files().size(), 1u);
}

TEST(TorchZip, Case01_FlippedWeightByteStaleCrc) {
  std::string bytes = BuildZip(TorchEntries(FloatsPickle("w", 1000), {{"0", FloatsData(1000)}}));
  bytes[bytes.find(FloatsData(1000)) + 2000] ^= 0x10;
  const std::string path = WriteTestFile(bytes);
  auto source = OpenTorchZip(path);
  ASSERT_TRUE(source.ok()) << source.status();
  auto verify = [&](const std::string&) { return absl::StatusOr<int>((*source)->Verify(0)); };
  for (int i = 0; i < 2; ++i) {
    ExpectRefusedFile(path, bytes.size(), verify, StatusCode::kDataLoss, {"x/data/0", "CRC-32"});
  }
  // A damaged data.pkl is seen at once.
  bytes = BuildZip(GoodEntries());
  bytes[bytes.find("FloatStorage")] ^= 1;
  ExpectRefused(bytes, OpenTorchZip, StatusCode::kDataLoss, {"x/data.pkl", "CRC-32"});
}

TEST(TorchZip, VerifyIsSafeFromManyThreads) {
  const auto source =
      OpenBytes(BuildZip(TorchEntries(FloatsPickle("w", 100000), {{"0", FloatsData(100000)}})));
  ASSERT_NE(source, nullptr);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      EXPECT_TRUE(source->Verify(0).ok());
      EXPECT_EQ(Floats(*source, 0)[99999], 99999);
    });
  }
  for (std::thread& t : threads) t.join();
}

TEST(TorchZip, Case05_DataPklMatchesExactly) {
  auto entries = GoodEntries();
  Find(&entries, "x/data.pkl")->name = "x/DATA.PKL";
  EntriesRefused(entries, StatusCode::kNotFound, {"data.pkl"});
  Find(&entries, "x/DATA.PKL")->name = "data.pkl";
  EntriesRefused(entries, StatusCode::kNotFound, {"data.pkl"});
  EntriesRefused({}, StatusCode::kNotFound, {"data.pkl"});
}

TEST(TorchZip, Case16_Version) {
  auto entries = GoodEntries();
  entries.pop_back();
  EntriesRefused(entries, StatusCode::kInvalidArgument, {"x/version", "missing"});
  entries = GoodEntries();
  entries.back().data = "99";
  EntriesRefused(entries, StatusCode::kUnimplemented, {"99"});
  for (const char* text : {"", "three", "0", "-1", "3x"}) {
    entries.back().data = text;
    EntriesRefused(entries, StatusCode::kInvalidArgument, {"version"});
  }
  entries.back().data = std::string(1000, '3');
  EntriesRefused(entries, StatusCode::kResourceExhausted, {"x/version"});
}

TEST(TorchZip, Case17_ByteOrder) {
  auto entries = GoodEntries();
  Find(&entries, "x/byteorder")->data = "middle";
  EntriesRefused(entries, StatusCode::kInvalidArgument, {"byteorder", "middle"});
  Find(&entries, "x/byteorder")->data = "big";
  EntriesRefused(entries, StatusCode::kUnimplemented, {"big-endian"});
  entries.erase(entries.begin() + 1);
  const auto source = OpenBytes(BuildZip(entries));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{0, 1, 2}));
}

TEST(TorchZip, Case18_TwoRoots) {
  auto entries = GoodEntries();
  entries.push_back(entries[0]);
  entries.back().name = "y/data.pkl";
  EntriesRefused(entries, StatusCode::kInvalidArgument, {"two checkpoints", "x/", "y/data.pkl"});
}

TEST(TorchZip, Case19_TorchScript) {
  auto entries = GoodEntries();
  entries.push_back(entries[0]);
  entries.back().name = "x/constants.pkl";
  EntriesRefused(entries, StatusCode::kUnimplemented, {"TorchScript", "state_dict"});
}

TEST(TorchZip, Case24_SystemIsNeverRun) {
  Refused(Pickler().Proto(2).Global("posix", "system").Str("touch /tmp/x").Raw("\x85R").Stop(), {},
          StatusCode::kInvalidArgument, {"posix system", "x/data.pkl"});
}

TEST(TorchZip, Case37_DuplicateTensorName) {
  Pickler twice;
  twice.Proto(2).Dict();
  for (int i = 0; i < 2; ++i) twice.Str("w").Tensor("FloatStorage", "0", 12, 0, {3}, {1}).SetItem();
  Refused(twice.Stop(), TwelveFloats(), StatusCode::kInvalidArgument, {"'w'", "two tensors"});
  // By two ways to one dotted name.
  Pickler dotted;
  dotted.Proto(2).Dict().Str("a.b").Tensor("FloatStorage", "0", 12, 0, {3}, {1}).SetItem();
  dotted.Str("a").Dict().Str("b").Tensor("FloatStorage", "0", 12, 0, {3}, {1}).SetItem().SetItem();
  Refused(dotted.Stop(), TwelveFloats(), StatusCode::kInvalidArgument, {"'a.b'", "two tensors"});
}

TEST(TorchZip, Case37_OneKeyTwiceInADict) {
  const std::string tensor = Pickler().Tensor("FloatStorage", "0", 12, 0, {3}, {1}).bytes();
  const std::string one_float("G\x3f\xf0\0\0\0\0\0\0", 9);
  const auto dict = [&](const std::string& first, const std::string& second,
                        const std::string& value) {
    return Pickler()
        .Proto(2)
        .Dict()
        .Str("a")
        .Dict()
        .Raw(first + tensor + "s" + second + value + "ssN0")
        .Stop();
  };
  for (const std::string& value : {std::string("N"), "}U\1x" + tensor + "s"}) {
    Refused(dict("U\1w", "U\1w", value), TwelveFloats(), StatusCode::kInvalidArgument,
            {"'a.w' is twice"});
    for (const std::string& key : {std::string("K\1"), std::string("\x88"), one_float}) {
      Refused(dict("K\1", key, value), TwelveFloats(), StatusCode::kInvalidArgument, {"is twice"});
    }
  }
  // A string is no number; what holds no tensor is no concern.
  EXPECT_NE(OpenBytes(TorchZipFile(dict("K\1", "U\0011", "N"), TwelveFloats())), nullptr);
  EXPECT_NE(OpenBytes(TorchZipFile(dict("K\1", "K\2", "}K\1NsK\1Ns"), TwelveFloats())), nullptr);
}

TEST(TorchZip, Case38_BytesBehindStop) {
  Refused(FloatsPickle("w", 12) + "N.", TwelveFloats(), StatusCode::kInvalidArgument,
          {"2 bytes behind"});
}

TEST(TorchZip, Case40_BadNames) {
  for (const std::string& name :
       {std::string("w\xff"), std::string("\xc0\x80"), std::string("\xed\xa0\x80"),
        std::string("a\0b", 3), std::string("a\nb"), std::string("\x7f")}) {
    Refused(FloatsPickle(name, 12), TwelveFloats(), StatusCode::kInvalidArgument,
            {"tensor", "UTF-8"});
  }
  Refused(FloatsPickle(std::string(1 << 20, 'w'), 12), TwelveFloats(), StatusCode::kInvalidArgument,
          {"longer than 1024"});
  // A long name from many short keys; and a long key many times over.
  Pickler deep;
  deep.Proto(2);
  for (int i = 0; i < 60; ++i) deep.Dict().Str(std::string(20, 'k'));
  deep.Tensor("FloatStorage", "0", 12, 0, {3}, {1});
  for (int i = 0; i < 60; ++i) deep.SetItem();
  Refused(deep.Stop(), TwelveFloats(), StatusCode::kInvalidArgument, {"longer than 1024"});
  Pickler keys;
  keys.Proto(2).Str(std::string(1 << 20, 'k')).Put(1).Raw("0").Dict().Mark();
  for (int i = 0; i < 100000; ++i) keys.Get(1).Raw("K\1");
  Refused(keys.Raw("u").Stop(), {}, StatusCode::kOk, {});
  // Names that are neither English nor short are fine.
  const auto source = OpenBytes(
      TorchZipFile(FloatsPickle("слой.权重 \"é\"" + std::string(900, 'x'), 12), TwelveFloats()));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->tensors()[0].name.substr(0, 8), "слой");
}

TEST(TorchZip, NamesAndSettingsAreLimitedTogether) {
  // 100,000 settings below a name of 1,000 bytes, from 1.3 MB of pickle.
  Pickler p;
  p.Proto(2).Dict().Str(std::string(1000, 'n')).Dict().Mark();
  for (int i = 0; i < 100000; ++i) p.Str(absl::StrCat(i)).Raw("N");
  Refused(p.Raw("us").Stop(), {}, StatusCode::kResourceExhausted, {"names and settings"});
  // One string in a list, again and again.
  Pickler list;
  list.Proto(2).Str(std::string(60000, 's')).Put(1).Raw("0]").Mark();
  for (int i = 0; i < 4000; ++i) list.Get(1);
  Refused(list.Raw("e").Stop(), {}, StatusCode::kOk, {});
}

TEST(TorchZip, LargeObjectsMetAgainAndAgainCostLittle) {
  const std::string large(1 << 20, 's');
  for (const std::string& object :
       {Pickler().Global("pathlib", "PosixPath").Str(large).Raw("\x85R").bytes(),
        Pickler()
            .Global("numpy.core.multiarray", "scalar")
            .Global("numpy", "dtype")
            .Str("f8")
            .Raw("\x85R")
            .Str(large)
            .Raw("\x86R")
            .bytes(),
        Pickler()
            .Global("pathlib", "PosixPath")
            .Mark()
            .Str("")
            .Raw(std::string(1000000, '2'))
            .Raw("tR")
            .bytes()}) {
    Pickler p;
    p.Proto(2).Raw(object).Put(1).Raw("0]").Mark();
    for (int i = 0; i < 1000000; ++i) p.Raw("h\1");
    Refused(p.Raw("e").Stop(), {}, StatusCode::kOk, {});
  }
}

TEST(TorchZip, Case57_ModelAndStateDictAreBothListed) {
  Pickler p;
  p.Proto(2).Dict();
  for (const char* key : {"model", "state_dict"}) {
    p.Str(key).Dict().Str("w").Tensor("FloatStorage", "0", 12, 0, {3}, {1}).SetItem().SetItem();
  }
  const auto source = OpenBytes(TorchZipFile(p.Stop(), TwelveFloats()));
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->tensors().size(), 2u);
  EXPECT_EQ(source->tensors()[0].name, "model.w");
  EXPECT_EQ(source->tensors()[1].name, "state_dict.w");
}

TEST(TorchZip, Case58_NotANumberIsReadAsItIs) {
  const uint32_t bits[] = {0x7fc00001, 0x7f800001, 0xff800000, 0x80000000};
  std::string data(sizeof bits, '\0');
  std::memcpy(&data[0], bits, sizeof bits);
  const auto source = OpenBytes(TorchZipFile(FloatsPickle("w", 4), {{"0", data}}));
  ASSERT_NE(source, nullptr);
  uint32_t read[4];
  ASSERT_TRUE(
      source->Read(0, 0, 4, absl::MakeSpan(reinterpret_cast<uint8_t*>(read), sizeof read)).ok());
  EXPECT_EQ(std::memcmp(read, bits, sizeof bits), 0);
}

TEST(TorchZip, CudaTensorsAreReadLikeOthers) {
  const auto source = OpenBytes(TorchZipFile(Pickler()
                                                 .Proto(2)
                                                 .Dict()
                                                 .Str("w")
                                                 .Global("torch._utils", "_rebuild_tensor_v2")
                                                 .Mark()
                                                 .Mark()
                                                 .Str("storage")
                                                 .Global("torch", "FloatStorage")
                                                 .Str("0")
                                                 .Str("cuda:0")
                                                 .Int(12)
                                                 .Tuple()
                                                 .Raw("Q")
                                                 .View(0, {3}, {1})
                                                 .Tuple()
                                                 .Reduce()
                                                 .SetItem()
                                                 .Stop(),
                                             TwelveFloats()));
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(Floats(*source, 0), (std::vector<float>{0, 1, 2}));
}

TEST(TorchZip, SettingsAreJson) {
  Pickler p;
  p.Proto(2).Dict().Mark();
  p.Str("args").Dict().Str("dim").Int(4096).SetItem();
  p.Str("name").Str("a \"b\"\n");
  p.Str("list").Raw("](K\1NU\1xe");
  p.Str("mixed").Raw("](K\1}U\1kK\2se");
  p.Str("ns")
      .Global("argparse", "Namespace")
      .Raw(")\x81}U\2lrG")
      .Raw(std::string("\x3f\xe0\0\0\0\0\0\0sb", 10));
  p.Raw("K\7").Raw("\x88");
  const auto source = OpenBytes(TorchZipFile(p.Raw("u").Stop()));
  ASSERT_NE(source, nullptr);
  const std::vector<std::pair<std::string, std::string>> listed(source->metadata().begin(),
                                                                source->metadata().end());
  const std::vector<std::pair<std::string, std::string>> expected = {{"args.dim", "4096"},
                                                                     {"name", "\"a \\\"b\\\"\\n\""},
                                                                     {"list", "[1,null,\"x\"]"},
                                                                     {"mixed.0", "1"},
                                                                     {"mixed.1.k", "2"},
                                                                     {"ns.lr", "0.5"},
                                                                     {"7", "true"}};
  EXPECT_EQ(listed, expected);
}

TEST(TorchZip, ReadsBehindATruncationAreDataLoss) {
  const std::string bytes =
      BuildZip(TorchEntries(FloatsPickle("w", 5000), {{"0", FloatsData(5000)}}));
  const std::string path = WriteTestFile(bytes);
  auto source = OpenTorchZip(path);
  ASSERT_TRUE(source.ok());
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), 10000);
  std::vector<uint8_t> out(20000);
  EXPECT_TRUE(absl::IsDataLoss((*source)->Read(0, 0, 5000, absl::MakeSpan(out))));
  EXPECT_TRUE(absl::IsDataLoss((*source)->Verify(0)));
}

TEST(TorchZip, EveryCutAndEveryFlippedByteIsAnErrorOrTheSameTensor) {
  const std::string bytes = BuildZip(GoodEntries());
  const std::string path = WriteTestFile(bytes);
  auto tensor_or_error = [&](const std::string& damaged) {
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(damaged.data(), damaged.size());
    auto source = OpenTorchZip(path);
    if (!source.ok()) {
      EXPECT_FALSE(source.status().message().empty());
    } else if ((*source)->Verify(0).ok()) {
      EXPECT_EQ(Floats(**source, 0), (std::vector<float>{0, 1, 2}));
    }
  };
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] ^= 1 << (i % 8);
    tensor_or_error(damaged);
    if (i % 4 == 0) tensor_or_error(bytes.substr(0, i));
  }
}

}  // namespace
}  // namespace quire
