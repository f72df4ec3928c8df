#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "convert/shard_merge.h"
#include "convert/tensor_source.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using nlohmann::json;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// The bytes of a safetensors file.
std::string Safetensors(const std::vector<Tensor>& tensors) {
  json header = json::object();
  std::string data;
  for (const Tensor& t : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(t.values.data()), t.values.size() * 4);
    header[t.name] = {{"dtype", "F32"}, {"shape", t.shape}, {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + text + data;
}

// A tensor of ascending numbers.
Tensor Ascending(std::string name, std::vector<int64_t> shape, float first = 0) {
  Tensor tensor{std::move(name), std::move(shape), {}};
  int64_t n = 1;
  for (int64_t d : tensor.shape) n *= d;
  for (int64_t i = 0; i < n; ++i) tensor.values.push_back(first + static_cast<float>(i));
  return tensor;
}

std::vector<float> ReadAll(const TensorSource& source, int index, int64_t begin, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count), -1.0f);
  const absl::Status status =
      source.Read(index, begin, count,
                  absl::MakeSpan(reinterpret_cast<uint8_t*>(values.data()), 4 * values.size()));
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    char pattern[4096];
    snprintf(pattern, sizeof pattern, "%s/folder_XXXXXX", testing::TempDir().c_str());
    folder_ = mkdtemp(pattern);
  }
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  void WriteIndex(const json& weight_map, const char* name = "model.safetensors.index.json") {
    Write(name, json{{"metadata", json::object()}, {"weight_map", weight_map}}.dump());
  }
  void ExpectRefused(absl::StatusCode code, const std::vector<std::string>& words) {
    ExpectRefused(OpenHuggingFaceFolder(folder_).status(), code, words);
  }
  static void ExpectRefused(const absl::Status& status, absl::StatusCode code,
                            const std::vector<std::string>& words) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos) << status;
    for (const std::string& word : words) {
      EXPECT_NE(std::string(status.message()).find(word), std::string::npos)
          << status << "\nlacks: " << word;
    }
  }
  std::string folder_;
};

TEST_F(FolderTest, ShardsOfHuggingFace) {
  Write("a.safetensors", Safetensors({Ascending("x", {2, 3}), Ascending("y", {4}, 10)}));
  Write("b.safetensors", Safetensors({Ascending("z", {2}, 20)}));
  WriteIndex({{"x", "a.safetensors"}, {"y", "a.safetensors"}, {"z", "b.safetensors"}});
  for (const std::string& folder : {folder_, folder_ + "/"}) {
    auto source = OpenHuggingFaceFolder(folder);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->container(), "safetensors");
    ASSERT_EQ((*source)->tensors().size(), 3u);
    EXPECT_EQ((*source)->tensors()[2].name, "z");
    EXPECT_EQ(ReadAll(**source, 0, 2, 3), (std::vector<float>{2, 3, 4}));
    EXPECT_EQ(ReadAll(**source, 2, 0, 2), (std::vector<float>{20, 21}));
    EXPECT_EQ((*source)->files().size(), 2u);
    EXPECT_TRUE((*source)->Verify(2).ok());
    EXPECT_EQ((*source)->Alias(0), -1);
  }
}

TEST_F(FolderTest, OneFileAndThePreferenceOfSafetensors) {
  ExpectRefused(kInvalid, {"model.safetensors"});
  ExpectRefused(OpenCheckpoint(folder_).status(), kInvalid, {"config.json, params.json"});
  Write("model-00001-of-00002.safetensors", "");
  Write("b.gguf", "");
  for (const absl::Status& status :
       {OpenCheckpoint(folder_).status(), OpenHuggingFaceFolder(folder_).status()}) {
    ExpectRefused(status, kInvalid, {"holds 'b.gguf' and 1 more", "give a checkpoint's file"});
  }
  Write("adapter_config.json", "{}");
  ExpectRefused(OpenCheckpoint(folder_).status(), kInvalid, {"adapter", "merged into its model"});
  Write("pytorch_model.bin", Safetensors({Ascending("bin", {1})}));  // by content
  EXPECT_EQ((*OpenHuggingFaceFolder(folder_))->tensors()[0].name, "bin");
  Write("shard", Safetensors({Ascending("sharded", {1})}));
  WriteIndex({{"sharded", "shard"}});
  EXPECT_EQ((*OpenHuggingFaceFolder(folder_))->tensors()[0].name, "sharded");
  Write("model.safetensors", Safetensors({Ascending("one", {1})}));
  EXPECT_EQ((*OpenHuggingFaceFolder(folder_))->tensors()[0].name, "one");
}

TEST_F(FolderTest, DistributedCheckpointsAreNamed) {
  Write(".metadata", "x");
  const absl::Status status = OpenCheckpoint(folder_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("dcp_to_torch_save"), absl::string_view::npos) << status;
}

TEST_F(FolderTest, MalformedIndexes) {
  for (const char* text : {"", "[]"}) {
    Write("model.safetensors.index.json", text);
    ExpectRefused(kInvalid, {"model.safetensors.index.json"});
  }
  for (const char* text : {"{}", R"({"weight_map": []})", R"({"weight_map": {}})",
                           R"({"weight_map": {"x": 1}})", R"({"weight_map": {"x": null}})"}) {
    Write("model.safetensors.index.json", text);
    ExpectRefused(kInvalid, {"model.safetensors.index.json", "weight_map"});
  }
  Write("model.safetensors.index.json", std::string(100000, '['));
  ExpectRefused(absl::StatusCode::kResourceExhausted, {"index.json", "nested deeper than 100"});
}

TEST_F(FolderTest, Case59ShardsOutsideOfTheFolder) {
  const std::string outside = folder_ + "_outside";
  std::ofstream(outside, std::ios::binary) << Safetensors({Ascending("x", {1})});
  const std::string name = outside.substr(outside.rfind('/') + 1);
  for (const std::string& shard : {"../" + name, outside, std::string("sub/a"), std::string(".."),
                                   std::string("."), std::string(""), std::string("a\0b", 3)}) {
    WriteIndex({{"x", shard}});
    ExpectRefused(kInvalid, {"the index names the shard"});
  }
  ASSERT_EQ(symlink(outside.c_str(), (folder_ + "/link").c_str()), 0);
  WriteIndex({{"x", "link"}});
  ExpectRefused(kInvalid, {"/link", "outside of its folder"});
  // A link within the folder is not an escape.
  Write("real", Safetensors({Ascending("x", {1})}));
  ASSERT_EQ(symlink("real", (folder_ + "/inner").c_str()), 0);
  WriteIndex({{"x", "inner"}});
  EXPECT_TRUE(OpenHuggingFaceFolder(folder_).ok()) << OpenHuggingFaceFolder(folder_).status();
  unlink(outside.c_str());
}

TEST_F(FolderTest, Case60TheCacheOfHuggingFace) {
  // models--x/snapshots/REVISION/NAME -> ../../blobs/HASH; the user may have linked to it, too.
  for (const char* sub : {"/blobs", "/snapshots", "/snapshots/0a1b"}) {
    ASSERT_EQ(mkdir((folder_ + sub).c_str(), 0755), 0);
  }
  Write("blobs/1111", Safetensors({Ascending("x", {3})}));
  Write("blobs/2222", Safetensors({Ascending("y", {1})}));
  Write("blobs/3333", json{{"weight_map", {{"x", "a"}, {"y", "b"}}}}.dump());
  const std::string snapshot = folder_ + "/snapshots/0a1b";
  ASSERT_EQ(symlink("../../blobs/1111", (snapshot + "/a").c_str()), 0);
  ASSERT_EQ(symlink("../../blobs/2222", (snapshot + "/b").c_str()), 0);
  ASSERT_EQ(symlink("../../blobs/3333", (snapshot + "/model.safetensors.index.json").c_str()), 0);
  ASSERT_EQ(symlink(snapshot.c_str(), (folder_ + "/mine").c_str()), 0);
  for (const std::string& path : {snapshot, folder_ + "/mine", folder_ + "/mine/"}) {
    auto source = OpenHuggingFaceFolder(path);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(ReadAll(**source, 0, 0, 3), (std::vector<float>{0, 1, 2}));
  }
  // But for the blobs, the rule holds there too.
  Write("secret", Safetensors({Ascending("y", {1})}));
  unlink((snapshot + "/b").c_str());
  ASSERT_EQ(symlink("../../secret", (snapshot + "/b").c_str()), 0);
  ExpectRefused(OpenHuggingFaceFolder(snapshot).status(), kInvalid, {"outside of its folder"});
}

TEST_F(FolderTest, Case61TensorsThatAreNotWhereTheIndexSays) {
  Write("a", Safetensors({Ascending("x", {1})}));
  Write("b", Safetensors({Ascending("y", {1})}));
  WriteIndex({{"x", "a"}, {"y", "b"}, {"w", "a"}});
  ExpectRefused(kInvalid, {"'w'", "'a'"});
  WriteIndex({{"x", "b"}, {"y", "b"}});
  ExpectRefused(kInvalid, {"'x'", "'b'"});
  Write("b", Safetensors({Ascending("x", {1}), Ascending("y", {1})}));
  WriteIndex({{"x", "a"}, {"y", "b"}});
  ExpectRefused(kInvalid, {"'x'", "two shards", "'a'", "'b'"});
}

TEST_F(FolderTest, Case62AbsentAndEmptyShards) {
  Write("a", Safetensors({Ascending("x", {1})}));
  WriteIndex({{"x", "a"}, {"y", "b"}});
  ExpectRefused(absl::StatusCode::kNotFound, {"/b"});
  Write("b", "");
  ExpectRefused(absl::StatusCode::kDataLoss, {"/b", "empty"});
  ASSERT_EQ(symlink("nowhere", (folder_ + "/c").c_str()), 0);
  WriteIndex({{"x", "a"}, {"y", "c"}});
  ExpectRefused(absl::StatusCode::kNotFound, {"/c"});
}

TEST_F(FolderTest, Case63WhatIsNoRegularFile) {
  Write("a", Safetensors({Ascending("x", {1})}));
  ASSERT_EQ(mkfifo((folder_ + "/fifo").c_str(), 0644), 0);
  ASSERT_EQ(mkdir((folder_ + "/directory").c_str(), 0755), 0);
  for (const char* name : {"fifo", "directory"}) {
    WriteIndex({{"x", "a"}, {"y", name}});
    ExpectRefused(kInvalid, {name});
  }
  ASSERT_EQ(symlink("/dev/zero", (folder_ + "/device").c_str()), 0);
  WriteIndex({{"y", "device"}});
  ExpectRefused(kInvalid, {"device"});
  // Not by way of an index either.
  ASSERT_EQ(symlink("/dev/zero", (folder_ + "/model.safetensors").c_str()), 0);
  ExpectRefused(kInvalid, {"model.safetensors"});
}

TEST_F(FolderTest, F23OutOfFileDescriptors) {
  json weight_map = json::object();
  for (int i = 0; i < 200; ++i) {
    const std::string name = absl::StrCat("shard-", i);
    Write(name, Safetensors({Ascending(absl::StrCat("t", i), {1})}));
    weight_map[absl::StrCat("t", i)] = name;
  }
  WriteIndex(weight_map);
  ASSERT_TRUE(OpenHuggingFaceFolder(folder_).ok()) << OpenHuggingFaceFolder(folder_).status();
  struct rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const struct rlimit few = {100, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const absl::Status status = OpenHuggingFaceFolder(folder_).status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
  ExpectRefused(status, absl::StatusCode::kResourceExhausted, {"shard-"});
}

// Two ways in which Meta's shards hold one small model: the embedding split by columns or by rows.
class MetaFolderTest : public FolderTest {
 protected:
  static constexpr int64_t kHidden = 6, kFfn = 4, kVocab = 4;

  // The part of a whole matrix that shard s of n holds.
  static Tensor Rows(const Tensor& whole, int s, int n) {
    const int64_t rows = whole.shape[0] / n;
    const int64_t stride = whole.shape.size() == 2 ? whole.shape[1] : 1;
    Tensor part{whole.name, whole.shape, {}};
    part.shape[0] = rows;
    for (int64_t i = s * rows * stride; i < (s + 1) * rows * stride; ++i) {
      part.values.push_back(whole.values[static_cast<size_t>(i)]);
    }
    return part;
  }
  static Tensor Columns(const Tensor& whole, int s, int n) {
    const int64_t cols = whole.shape[1] / n;
    Tensor part{whole.name, {whole.shape[0], cols}, {}};
    for (int64_t r = 0; r < whole.shape[0]; ++r) {
      for (int64_t c = s * cols; c < (s + 1) * cols; ++c) {
        part.values.push_back(whole.values[static_cast<size_t>(r * whole.shape[1] + c)]);
      }
    }
    return part;
  }
  std::vector<Tensor> Whole() {
    return {Ascending("tok_embeddings.weight", {kVocab, kHidden}),
            Ascending("norm.weight", {kHidden}, 100),
            Ascending("layers.10.attention.wq.weight", {kHidden, kHidden}, 200),
            Ascending("layers.10.attention.wk.weight", {2, kHidden}, 300),
            Ascending("layers.10.attention.wo.weight", {kHidden, kHidden}, 400),
            Ascending("layers.10.attention_norm.weight", {kHidden}, 500),
            Ascending("layers.10.feed_forward.w1.weight", {kFfn, kHidden}, 600),
            Ascending("layers.10.feed_forward.w2.weight", {kHidden, kFfn}, 700),
            Ascending("rope.freqs", {3}, 800),
            Ascending("output.weight", {kVocab, kHidden}, 900)};
  }
  std::vector<Tensor> Shard(int s, int n, bool embedding_by_rows) {
    std::vector<Tensor> parts;
    for (const Tensor& t : Whole()) {
      if (t.shape.size() == 1) {
        parts.push_back(t);
      } else if (t.name == "layers.10.attention.wo.weight" ||
                 t.name == "layers.10.feed_forward.w2.weight" ||
                 (t.name == "tok_embeddings.weight" && !embedding_by_rows)) {
        parts.push_back(Columns(t, s, n));
      } else {
        parts.push_back(Rows(t, s, n));
      }
    }
    return parts;
  }
  void WriteShards(int n, bool embedding_by_rows) {
    for (int s = 0; s < n; ++s) {
      Write(absl::StrCat("consolidated.0", s, ".pth"), Safetensors(Shard(s, n, embedding_by_rows)));
    }
  }
  void ExpectMetaRefused(absl::StatusCode code, const std::vector<std::string>& words) {
    ExpectRefused(OpenMetaFolder(folder_).status(), code, words);
  }
};

TEST_F(MetaFolderTest, ShardsAreJoinedAlongTheRightAxis) {
  for (bool embedding_by_rows : {false, true}) {
    WriteShards(2, embedding_by_rows);
    auto source = OpenMetaFolder(folder_);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->files().size(), 2u);
    ASSERT_EQ((*source)->tensors().size(), Whole().size());
    for (const Tensor& expected : Whole()) {
      int index = 0;
      while ((*source)->tensors()[static_cast<size_t>(index)].name != expected.name) ++index;
      EXPECT_EQ((*source)->tensors()[static_cast<size_t>(index)].shape, expected.shape)
          << expected.name;
      const auto n = static_cast<int64_t>(expected.values.size());
      EXPECT_EQ(ReadAll(**source, index, 0, n), expected.values) << expected.name;
      for (int64_t begin = 0; begin < n; ++begin) {
        for (int64_t count = 1; count <= n - begin; ++count) {
          ASSERT_EQ(ReadAll(**source, index, begin, count),
                    std::vector<float>(expected.values.begin() + begin,
                                       expected.values.begin() + begin + count))
              << expected.name << " " << begin << " " << count;
        }
      }
      EXPECT_TRUE((*source)->Verify(index).ok());
    }
  }
}

// More columns than the scratch buffer takes at once.
TEST_F(MetaFolderTest, LongRowsAreJoinedInPieces) {
  const Tensor norm = Ascending("norm.weight", {40000});
  const Tensor wo = Ascending("layers.0.attention.wo.weight", {9, 40000});
  for (int s = 0; s < 4; ++s) {
    Write(absl::StrCat("consolidated.0", s, ".pth"), Safetensors({norm, Columns(wo, s, 4)}));
  }
  auto source = OpenMetaFolder(folder_);
  ASSERT_TRUE(source.ok()) << source.status();
  const int index = (*source)->tensors()[0].name == "norm.weight" ? 1 : 0;
  EXPECT_EQ(ReadAll(**source, index, 0, 360000), wo.values);
  EXPECT_EQ(ReadAll(**source, index, 39999, 160003),
            std::vector<float>(wo.values.begin() + 39999, wo.values.begin() + 200002));
}

TEST_F(MetaFolderTest, OneShardIsOpenedAsItIs) {
  WriteShards(1, true);
  auto source = OpenMetaFolder(folder_);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->tensors().size(), Whole().size());
  unlink((folder_ + "/consolidated.00.pth").c_str());
  ExpectMetaRefused(kInvalid, {"consolidated.00.pth"});
}

TEST_F(MetaFolderTest, AMissingShardIsNamed) {
  WriteShards(3, true);
  unlink((folder_ + "/consolidated.01.pth").c_str());
  ExpectMetaRefused(absl::StatusCode::kNotFound, {"consolidated.01.pth"});
  Write("consolidated.01.pth", "");
  ExpectMetaRefused(absl::StatusCode::kDataLoss, {"consolidated.01.pth", "empty"});
}

TEST_F(MetaFolderTest, ShardsThatDoNotFitTogether) {
  WriteShards(2, true);
  std::vector<Tensor> shard = Shard(1, 2, true);
  shard[2] = Ascending(shard[2].name, {1, kHidden});
  Write("consolidated.01.pth", Safetensors(shard));
  ExpectMetaRefused(kInvalid, {shard[2].name, "[1, 6]", "[3, 6]"});
  shard = Shard(1, 2, true);
  const std::string lost = shard.back().name;
  shard.pop_back();
  Write("consolidated.01.pth", Safetensors(shard));
  ExpectMetaRefused(kInvalid, {lost, "not in 'consolidated.01.pth'"});
  shard = Shard(1, 2, true);
  shard.push_back(Ascending("more", {1}));
  Write("consolidated.01.pth", Safetensors(shard));
  ExpectMetaRefused(kInvalid, {"'more'", "not in 'consolidated.00.pth'"});
  // An embedding as wide as neither the norms nor their half.
  for (int s = 0; s < 2; ++s) {
    shard = Shard(s, 2, true);
    shard[0] = Ascending(shard[0].name, {kVocab, 2});
    Write(absl::StrCat("consolidated.0", s, ".pth"), Safetensors(shard));
  }
  ExpectMetaRefused(kInvalid, {"tok_embeddings.weight", "[4, 2]"});
  for (int s = 0; s < 2; ++s) {
    Write(absl::StrCat("consolidated.0", s, ".pth"), Safetensors({Ascending("x", {1})}));
  }
  ExpectMetaRefused(absl::StatusCode::kNotFound, {"norm.weight"});
}

}  // namespace
}  // namespace quire
