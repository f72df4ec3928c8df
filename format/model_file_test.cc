#include "format/model_file.h"

#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "format/header.h"
#include "format/manifest_check.h"
#include "format/test_caps.h"
#include "format/test_model.h"
#include "format/writer.h"

namespace quire {
namespace {

class ModelFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "/model_file_test.quire";
    bytes_ = WriteTestModel(path_);
  }
  void TearDown() override { unlink(path_.c_str()); }

  absl::Status OpenBytes(const std::string& bytes) {
    WriteFileOrDie(path_, bytes);
    return ModelFile::Open(path_).status();
  }
  absl::Status VerifyBytes(const std::string& bytes) {
    WriteFileOrDie(path_, bytes);
    auto model = ModelFile::Open(path_);
    return model.ok() ? model->Verify([](int64_t) {}) : model.status();
  }
  absl::Status OpenManifest(const pb::Manifest& manifest) {
    return OpenBytes(WithManifest(bytes_, manifest.SerializeAsString()));
  }
  // A vector, a matrix of 5 rows and 16 columns in panels, a tokenizer.
  std::string WriteTinyModel() {
    pb::Manifest manifest = TestManifest();
    auto* tensors = manifest.mutable_tensors();
    tensors->DeleteSubrange(0, tensors->size() - 2);
    ClearCodebooks(&manifest);
    auto writer = FileWriter::Create(path_, manifest, "\n\1t", true);
    EXPECT_TRUE(writer.ok()) << writer.status();
    for (const pb::TensorEntry& entry : (*writer)->manifest().tensors()) {
      EXPECT_TRUE((*writer)->Append(TestTensorBytes(entry, 1)).ok());
    }
    EXPECT_TRUE((*writer)->Finish().ok());
    return ReadFileOrDie(path_);
  }
  void ExpectStatus(const absl::Status& status, absl::StatusCode code, absl::string_view word) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), word)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), path_)) << status;
  }
  // Changes the manifest, mends all checksums, and expects the code and a word of the message.
  template <typename F>
  void ExpectRefused(F change, absl::StatusCode code, absl::string_view word) {
    pb::Manifest manifest = ManifestOf(bytes_);
    change(&manifest);
    ExpectStatus(OpenManifest(manifest), code, word);
  }

  std::string path_, bytes_;
};

TEST_F(ModelFileTest, ReadsBackWhatWasWritten) {
  auto model = ModelFile::Open(path_);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->Verify([](int64_t) {}).ok());
  ASSERT_EQ(model->tensors().size(), 12u);
  uint32_t seed = 1;
  for (int i = 0; i < 12; ++i) {
    const TensorView& tensor = model->tensors()[i];
    const std::vector<uint8_t> want = TestTensorBytes(model->manifest().tensors(i), seed++);
    ASSERT_EQ(tensor.bytes, static_cast<int64_t>(want.size()));
    EXPECT_EQ(tensor.offset % kTensorAlignment, 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % 4096, 0u);
    EXPECT_EQ(std::memcmp(tensor.data, want.data(), want.size()), 0) << tensor.name;
    EXPECT_EQ(model->Find(tensor.name), &tensor);
  }
  EXPECT_EQ(model->Find("layers.0.bq"), nullptr);
  EXPECT_EQ(bytes_.size() % kTensorAlignment, 0u);
  auto tokenizer = model->LoadTokenizer();
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(tokenizer->chat_template(), "a template");
}

TEST_F(ModelFileTest, WritingIsDeterministic) { EXPECT_EQ(WriteTestModel(path_), bytes_); }

TEST_F(ModelFileTest, Case79_BadMagicUnknownVersionUnknownFeature) {
  std::string bytes = bytes_;
  bytes[1] = 'X';
  ExpectStatus(OpenBytes(bytes), absl::StatusCode::kInvalidArgument, "not a .quire file");
  bytes = bytes_;
  bytes[8] = 2;
  const uint64_t sum = XXH3_64bits(bytes.data(), kHeaderBytes - 8);
  std::memcpy(&bytes[kHeaderBytes - 8], &sum, 8);
  ExpectStatus(OpenBytes(bytes), absl::StatusCode::kUnimplemented, "version 2");
  ExpectRefused([](pb::Manifest* m) { m->add_required_features("time-travel"); },
                absl::StatusCode::kUnimplemented, "time-travel");
}

TEST_F(ModelFileTest, Case80_ManifestTooLargeOrTooDeep) {
  std::string bytes = bytes_;
  Header header;
  header.manifest_bytes = kMaxManifestBytes + 1;
  header.file_bytes = static_cast<int64_t>(bytes.size());
  header.Serialize(reinterpret_cast<uint8_t*>(bytes.data()));
  ExpectStatus(OpenBytes(bytes), absl::StatusCode::kResourceExhausted, "67108865");
  // Unknown groups, nested: field 100, start and end.
  std::string groups = ManifestOf(bytes_).SerializeAsString();
  for (int i = 0; i < 150; ++i) groups += std::string("\xa3\x06", 2);
  for (int i = 0; i < 150; ++i) groups += std::string("\xa4\x06", 2);
  ExpectStatus(OpenBytes(WithManifest(bytes_, groups)), absl::StatusCode::kResourceExhausted,
               "nested deeper than 100");
}

TEST_F(ModelFileTest, Case81_RepeatedSingularField) {
  std::string manifest = ManifestOf(bytes_).SerializeAsString();
  manifest += std::string("\x3a\x01z", 3);  // scheme, a second time
  const absl::Status status = OpenBytes(WithManifest(bytes_, manifest));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "repeated singular field")) << status;
}

TEST_F(ModelFileTest, Case82_OffsetsThatWrapOverlapOrAreUnaligned) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{64}, ~uint64_t{0},
                                uint64_t{1} << 63, uint64_t{16384 * 3}}) {
    ExpectRefused([&](pb::Manifest* m) { m->mutable_tensors(3)->set_offset(offset); },
                  absl::StatusCode::kInvalidArgument, "layers.0.wk");
  }
  ExpectRefused([](pb::Manifest* m) { m->mutable_tensors(3)->set_bytes(1); },
                absl::StatusCode::kInvalidArgument, "bytes");
  ExpectRefused([](pb::Manifest* m) { m->mutable_tensors(2)->set_shape(0, 1 << 20); },
                absl::StatusCode::kInvalidArgument, "needs");
  ExpectRefused([](pb::Manifest* m) { m->mutable_tokenizer()->set_offset(16384); },
                absl::StatusCode::kInvalidArgument, "tokenizer");
  ExpectRefused([](pb::Manifest* m) { m->mutable_tensors()->RemoveLast(); },
                absl::StatusCode::kInvalidArgument, "offset");
}

TEST_F(ModelFileTest, Case82_NonzeroPadding) {
  std::string bytes = bytes_;
  bytes[bytes.size() - 1] = 1;
  ExpectStatus(VerifyBytes(bytes), absl::StatusCode::kInvalidArgument,
               absl::StrCat("padding byte at ", bytes.size() - 1));
}

TEST_F(ModelFileTest, Case83_WrongTensorOrManifestChecksum) {
  std::string bytes = bytes_;
  bytes[ManifestOf(bytes_).tensors(2).offset() + 70] ^= 1;
  EXPECT_TRUE(OpenBytes(bytes).ok());
  const absl::Status status = VerifyBytes(bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(absl::StrContains(status.message(), "layers.0.wq")) << status;
  bytes = bytes_;
  bytes[kHeaderBytes + 4] ^= 1;
  ExpectStatus(OpenBytes(bytes), absl::StatusCode::kDataLoss, "manifest's checksum differs");
}

TEST_F(ModelFileTest, Case84_AbsentChecksum) {
  ExpectRefused([](pb::Manifest* m) { m->mutable_tensors(2)->clear_xxh3(); },
                absl::StatusCode::kInvalidArgument, "no checksum");
  ExpectRefused([](pb::Manifest* m) { m->mutable_tokenizer()->clear_xxh3(); },
                absl::StatusCode::kInvalidArgument, "checksum");
}

TEST_F(ModelFileTest, Case85_ScaleThatIsNotFinite) {
  // f16 infinity as the first scale of layers.0.wk (q4_0), every checksum right.
  std::string bytes = bytes_;
  pb::Manifest manifest = ManifestOf(bytes_);
  pb::TensorEntry* wk = manifest.mutable_tensors(3);
  bytes[wk->offset() + 1] = 0x7c;
  wk->set_xxh3(XXH3_64bits(bytes.data() + wk->offset(), wk->bytes()));
  const absl::Status status = VerifyBytes(WithManifest(bytes, manifest.SerializeAsString()));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "not finite")) << status;
}

TEST_F(ModelFileTest, RefusesFieldsOutOfBounds) {
  using M = pb::Manifest;
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused([](M* m) { m->mutable_config()->set_n_layers(0); }, invalid, "n_layers");
  ExpectRefused(
      [](M* m) {
        m->mutable_config()->set_n_heads(3);
        m->mutable_config()->set_n_kv_heads(2);
      },
      invalid, "n_kv_heads");
  ExpectRefused([](M* m) { m->mutable_config()->set_head_dim(7); }, invalid, "head_dim");
  ExpectRefused([](M* m) { m->mutable_config()->set_rope_theta(-1); }, invalid, "rope_theta");
  ExpectRefused([](M* m) { m->mutable_tensors(0)->set_name("norm"); }, invalid, "second tensor");
  ExpectRefused([](M* m) { m->mutable_tensors(0)->set_name("a\nb"); }, invalid, "ASCII");
  ExpectRefused([](M* m) { m->mutable_tensors(0)->set_name(std::string(257, 'x')); },
                absl::StatusCode::kResourceExhausted, "257");
  ExpectRefused([](M* m) { m->mutable_tensors(0)->set_shape(0, 0); }, invalid, "dimension");
  ExpectRefused([](M* m) { m->mutable_tensors(0)->set_shape(0, uint64_t{1} << 40); }, invalid,
                "dimension");
  ExpectRefused([](M* m) { m->mutable_tensors(0)->add_shape(1); }, invalid, "rank");
  ExpectRefused([](M* m) { m->mutable_tensors(1)->set_layout(pb::LAYOUT_PANELS); }, invalid,
                "vector");
  ExpectRefused([](M* m) { m->mutable_tensors(2)->set_codebook(1); }, invalid, "codebook");
  ExpectRefused([](M* m) { m->mutable_tensors(3)->set_codebook(0); }, invalid, "codebook");
  ExpectRefused([](M* m) { m->mutable_codebooks(0)->set_values("short"); }, invalid, "codebook");
  ExpectRefused([](M* m) { m->mutable_tensors(2)->set_codebook(1); }, invalid, "32 values");
  ExpectRefused([](M* m) { m->mutable_tensors(9)->set_codebook(0); }, invalid, "16 values");
  // What keeps readers from before q5 away.
  ExpectRefused([](M* m) { m->clear_required_features(); }, invalid, "codebook32");
  ExpectRefused(
      [](M* m) { m->mutable_tensors(2)->set_encoding(static_cast<pb::EncodingCode>(77)); },
      absl::StatusCode::kUnimplemented, "77");
}

class EveryByteTest : public ModelFileTest {
 protected:
  const bool every_bit_ = getenv("QUIRE_EVERY_BIT") != nullptr;
  EveryByteTest() { AllowThisTest(every_bit_ ? 36000 : 15, 64); }  // many files
};

TEST_F(EveryByteTest, Case85b_EveryCutIsRefused) {
  for (off_t size = static_cast<off_t>(bytes_.size()) - 1; size >= 0; --size) {
    ASSERT_EQ(truncate(path_.c_str(), size), 0);
    const absl::Status status = ModelFile::Open(path_).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << size << " " << status;
  }
  EXPECT_EQ(OpenBytes(bytes_ + "x").code(), absl::StatusCode::kInvalidArgument);
}

// Of a file of two tensors, whose panels have rows and columns of padding, and a tokenizer: one bit
// of every byte. QUIRE_EVERY_BIT=1: all bits of every byte, also of a file of all encodings.
TEST_F(EveryByteTest, Case85b_EveryFlippedByteIsRefusedByVerify) {
  for (const bool whole : {false, true}) {
    if (whole && !every_bit_) continue;
    const std::string bytes = whole ? WriteTestModel(path_) : WriteTinyModel();
    ASSERT_TRUE(VerifyBytes(bytes).ok());
    const int fd = open(path_.c_str(), O_WRONLY);
    for (size_t i = 0; i < bytes.size(); ++i) {
      for (size_t bit = 0; bit < 8; ++bit) {
        if (!every_bit_ && bit != i % 8) continue;
        const char flipped = static_cast<char>(bytes[i] ^ (1 << bit));
        ASSERT_EQ(pwrite(fd, &flipped, 1, static_cast<off_t>(i)), 1);
        const auto model = ModelFile::Open(path_);
        const absl::Status status = model.ok() ? model->Verify([](int64_t) {}) : model.status();
        ASSERT_FALSE(status.ok()) << "byte " << i << " bit " << bit;
        ASSERT_TRUE(absl::StrContains(status.message(), path_)) << status;
      }
      ASSERT_EQ(pwrite(fd, &bytes[i], 1, static_cast<off_t>(i)), 1);
    }
    close(fd);
    EXPECT_EQ(ReadFileOrDie(path_), bytes);
  }
}

// What an attacker writes: no checksum tells.
TEST_F(EveryByteTest, EveryBitOfHeaderAndManifestWithItsChecksumMended) {
  google::protobuf::LogSilencer silence;
  int opened = 0;
  const int fd = open(path_.c_str(), O_WRONLY);
  const auto look = [&](const std::string& bytes, size_t bit) {
    ASSERT_EQ(pwrite(fd, bytes.data(), kTensorAlignment, 0), kTensorAlignment);
    const auto model = ModelFile::Open(path_);
    const absl::Status status = model.ok() ? model->Verify([](int64_t) {}) : model.status();
    opened += status.ok();
    EXPECT_TRUE(status.ok() || absl::StrContains(status.message(), path_)) << bit << status;
    EXPECT_FALSE(absl::IsInternal(status) || absl::IsUnknown(status)) << bit << " " << status;
  };
  const std::string manifest = ManifestOf(bytes_).SerializeAsString();
  for (size_t bit = 0; bit < 8 * manifest.size(); ++bit) {
    std::string changed = manifest;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
    look(WithManifest(bytes_, changed), bit);
  }
  EXPECT_GT(opened, 8);  // letters of the scheme and the like say nothing that could be wrong
  opened = 0;
  for (size_t bit = 0; bit < 8 * (kHeaderBytes - 8); ++bit) {
    std::string changed = bytes_;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
    const uint64_t sum = XXH3_64bits(changed.data(), kHeaderBytes - 8);
    std::memcpy(&changed[kHeaderBytes - 8], &sum, 8);
    look(changed, bit);
  }
  EXPECT_EQ(opened, 0);
  close(fd);
}

TEST_F(ModelFileTest, OtherFilesAreRefusedWithAReason) {
  EXPECT_EQ(OpenBytes("").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(OpenBytes("PK\x03\x04 a zip file, say").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ModelFile::Open(testing::TempDir()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ModelFile::Open("/nonexistent").status().code(), absl::StatusCode::kNotFound);
  const std::string fifo = testing::TempDir() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(ModelFile::Open(fifo).status().code(), absl::StatusCode::kInvalidArgument);
  unlink(fifo.c_str());
}

class WriterTest : public ModelFileTest {};

TEST_F(WriterTest, ExistingOutputIsRefusedAndKept) {
  WriteFileOrDie(path_, "precious");
  EXPECT_EQ(FileWriter::Create(path_, TestManifest(), "", false).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReadFileOrDie(path_), "precious");
}

TEST_F(WriterTest, UnfinishedWriterLeavesNothing) {
  const std::string folder = testing::TempDir() + "/unfinished";
  ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
  {
    auto writer = FileWriter::Create(folder + "/a.quire", TestManifest(), "t", false);
    ASSERT_TRUE(writer.ok()) << writer.status();
    const std::vector<uint8_t> first = TestTensorBytes((*writer)->manifest().tensors(0), 1);
    ASSERT_TRUE((*writer)->Append(first).ok());
    EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(rmdir(folder.c_str()), 0) << "something was left in " << folder;
}

TEST_F(WriterTest, Case_F20_TwoWritersOneOutput) {
  const std::string path = testing::TempDir() + "/raced.quire";
  unlink(path.c_str());
  auto a = FileWriter::Create(path, TestManifest(), "", false);
  auto b = FileWriter::Create(path, TestManifest(), "", false);
  ASSERT_TRUE(a.ok() && b.ok());
  for (auto* writer : {&*a, &*b}) {
    for (const pb::TensorEntry& entry : (*writer)->manifest().tensors()) {
      ASSERT_TRUE((*writer)->Append(TestTensorBytes(entry, 1)).ok());
    }
  }
  EXPECT_TRUE((*a)->Finish().ok());
  EXPECT_EQ((*b)->Finish().code(), absl::StatusCode::kAlreadyExists);
  auto model = ModelFile::Open(path);
  ASSERT_TRUE(model.ok());
  EXPECT_TRUE(model->Verify([](int64_t) {}).ok());
  unlink(path.c_str());
}

TEST_F(WriterTest, Case_F21_OutputIsTheInput) {
  const std::string other = path_ + ".link";
  ASSERT_EQ(link(path_.c_str(), other.c_str()), 0);
  EXPECT_EQ(CheckNotSameFile(path_, other).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(CheckNotSameFile(path_, path_ + ".absent").ok());
  unlink(other.c_str());
}

TEST_F(WriterTest, FolderThatIsNotThere) {
  EXPECT_EQ(FileWriter::Create("/nonexistent/x.quire", TestManifest(), "", false).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire
