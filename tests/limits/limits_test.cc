// Every stated limit (docs/security.md): what lies at it is not refused for it, one more is.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "convert/fake_source.h"
#include "convert/hyperparameters.h"
#include "convert/inflate.h"
#include "convert/inspect_checkpoint.h"
#include "convert/json_object.h"
#include "convert/pickle_vm.h"
#include "convert/tensor_source.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/tokenizer_import.h"
#include "convert/torch_listing.h"
#include "convert/zip_reader.h"
#include "format/file.h"
#include "format/header.h"
#include "format/manifest_check.h"
#include "format/model_file.h"
#include "format/test_caps.h"
#include "format/test_model.h"
#include "format/writer.h"
#include "runtime/chat_template.h"
#include "runtime/tokenizer.h"

namespace quire {
namespace {

using absl::StatusCode;

// `make(n)` is the status of something of size n.
void ExpectLimit(int64_t limit, const std::function<absl::Status(int64_t n)>& make,
                 absl::string_view words, StatusCode code = StatusCode::kResourceExhausted) {
  const absl::Status at = make(limit), past = make(limit + 1);
  EXPECT_FALSE(absl::StrContains(at.message(), words)) << at;
  EXPECT_NE(at.code(), StatusCode::kResourceExhausted) << at;
  EXPECT_EQ(past.code(), code) << past;
  EXPECT_TRUE(absl::StrContains(past.message(), words)) << past;
}

std::string TestPath(const std::string& name) { return ::testing::TempDir() + "/" + name; }

// A file of `bytes` bytes that begins with `head`; the rest is a hole.
std::string SparseFile(const std::string& name, const std::string& head, int64_t bytes) {
  const std::string path = TestPath(name);
  WriteFileOrDie(path, head);
  EXPECT_EQ(truncate(path.c_str(), bytes), 0);
  return path;
}

absl::Status Pickled(const std::string& bytes) { return ParsePickle(bytes, "x").status(); }

absl::Status Listed(const Pickler& pickle) {
  const auto parsed = ParsePickle(pickle.Stop(), "x");
  if (!parsed.ok()) return parsed.status();
  return ListTorchTensors(*parsed, "x").status();
}

absl::Status Zipped(const std::string& archive) {
  const std::string path = TestPath("limit.zip");
  WriteFileOrDie(path, archive);
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  return ZipReader::Open(*std::move(file)).status();
}

class Limits : public testing::Test {
 protected:
  Limits() { AllowThisTest(4, 320); }  // what lies at a limit is large: up to 128 MiB
};

TEST_F(Limits, PickleBytes) {
  ExpectLimit(
      kMaxPickleBytes,
      [](int64_t n) { return Pickled("N." + std::string(static_cast<size_t>(n - 2), '.')); },
      "bytes of pickle");
}

TEST_F(Limits, PickleValues) {
  // Each pair of bytes makes a list and drops it; the last value is None.
  ExpectLimit(
      kMaxPickleNodes,
      [](int64_t n) {
        std::string bytes;
        for (int64_t i = 0; i < n - 1; ++i) bytes += "]0";
        return Pickled(bytes + "N.");
      },
      "4194304 values");
}

TEST_F(Limits, PickleStack) {
  ExpectLimit(
      kMaxPickleStack,
      [](int64_t n) { return Pickled(std::string(static_cast<size_t>(n), 'N') + "."); },
      "values on the stack");
  ExpectLimit(
      kMaxPickleStack,
      [](int64_t n) { return Pickled(std::string(static_cast<size_t>(n), '(') + "."); },
      "marks, the limit");
}

TEST_F(Limits, PickleNesting) {
  ExpectLimit(
      kMaxPickleDepth,
      [](int64_t n) {
        const auto lists = static_cast<size_t>(n);
        return Pickled(std::string(lists, ']') + std::string(lists - 1, 'a') + ".");
      },
      "nested deeper");
}

TEST_F(Limits, PickleIntegersAndMemo) {
  ExpectLimit(
      kMaxPickleLongBytes,
      [](int64_t n) {
        return Pickled("\x8b" + Le(static_cast<uint64_t>(n), 4) +
                       std::string(static_cast<size_t>(n), '\1') + ".");
      },
      "limit is 255");
  ExpectLimit(
      kMaxPickleMemo - 1,
      [](int64_t n) { return Pickled("Nr" + Le(static_cast<uint64_t>(n), 4) + "."); },
      "memo index");
}

TEST_F(Limits, PickleGlobalNames) {
  ExpectLimit(
      kMaxPickleGlobalBytes,
      [](int64_t n) { return Pickled("cm\n" + std::string(static_cast<size_t>(n), 'a') + "\n."); },
      "is longer than 512 bytes", StatusCode::kInvalidArgument);
}

TEST_F(Limits, ZipNamesRecordsAndDirectory) {
  ExpectLimit(
      kMaxZipNameBytes,
      [](int64_t n) {
        ZipEntry entry;
        entry.name = std::string(static_cast<size_t>(n), 'a');
        return Zipped(BuildZip({entry}));
      },
      "limit is 4096", StatusCode::kInvalidArgument);
  ExpectLimit(
      kMaxZipRecords,
      [](int64_t n) {
        std::vector<ZipEntry> entries(static_cast<size_t>(n));
        for (size_t i = 0; i < entries.size(); ++i) {
          entries[i].name = absl::StrCat(i);
          entries[i].local_extra = "";
          entries[i].descriptor = false;
        }
        return Zipped(BuildZip(entries));
      },
      "limit is 262144");
  // A directory of one record, and of zeros behind it, that is said to be all directory.
  ExpectLimit(
      kMaxZipDirectoryBytes,
      [](int64_t n) {
        ZipTail tail;
        tail.before_end = std::string(static_cast<size_t>(n) - 47, '\0');
        tail.directory_bytes = static_cast<uint64_t>(n);
        ZipEntry entry;
        entry.name = "a";
        return Zipped(BuildZip({entry}, tail));
      },
      "limit is 33554432");
}

TEST_F(Limits, DeflateRatio) {
  // What is said of a deflated record of 100 bytes; the second is impossible.
  ExpectLimit(
      100 * kMaxDeflateRatio,
      [](int64_t n) {
        ZipEntry entry;
        entry.name = "a";
        entry.data = std::string(100, 'x');
        entry.method = 8;
        entry.bytes = static_cast<uint64_t>(n);
        entry.descriptor_bytes = static_cast<uint64_t>(n);
        return Zipped(BuildZip({entry}));
      },
      "1032");
}

TEST_F(Limits, InflatedAgain) {
  AllowThisTest(10, 320);  // 33 times 32 MiB
  // Read forwards a number of times. What is kept of a record is less than all of it.
  constexpr int64_t kBytes = 32 << 20, kStep = 4 << 20;
  ZipEntry entry;
  entry.name = "a";
  entry.data = std::string(kBytes, 'x');
  entry.deflate = true;
  const std::string path = TestPath("again.zip");
  WriteFileOrDie(path, BuildZip({entry}));
  ExpectLimit(
      kMaxInflatePasses + kMaxInflatedAgainBytes / kBytes,
      [&](int64_t n) {
        absl::StatusOr<ZipReader> zip = ZipReader::Open(*File::Open(path));
        EXPECT_TRUE(zip.ok()) << zip.status();
        std::vector<uint8_t> out(kStep);
        absl::Status status;
        for (int64_t i = 0; status.ok() && i < n * (kBytes / kStep); ++i) {
          status = zip->ReadAt(0, i * kStep % kBytes, absl::MakeSpan(out));
        }
        return status;
      },
      "more than 8 times");
}

TEST_F(Limits, TorchRankAndNames) {
  ExpectLimit(
      kMaxTensorRank,
      [](int64_t n) {
        const std::vector<int64_t> ones(static_cast<size_t>(n), 1);
        Pickler pickle;
        pickle.Proto(2).Dict().Str("a").Tensor("FloatStorage", "0", 1, 0, ones, ones).SetItem();
        return Listed(pickle);
      },
      "the limit is 64", StatusCode::kInvalidArgument);
  ExpectLimit(
      kMaxTensorNameBytes,
      [](int64_t n) {
        const std::string name(static_cast<size_t>(n), 'a');
        Pickler pickle;
        pickle.Proto(2).Dict().Str(name).Tensor("FloatStorage", "0", 1, 0, {1}, {1}).SetItem();
        return Listed(pickle);
      },
      "longer than 1024", StatusCode::kInvalidArgument);
}

TEST_F(Limits, TorchRepeatedBytes) {
  // One float, expanded.
  ExpectLimit(
      kMaxRepeatedBytes / 4 + 1,
      [](int64_t n) {
        Pickler pickle;
        pickle.Proto(2).Dict().Str("a").Tensor("FloatStorage", "0", 1, 0, {n}, {0}).SetItem();
        return Listed(pickle);
      },
      "repeats a storage");
}

// One tensor under many names; the names fill the listing before their number is too large.
TEST_F(Limits, TorchListing) {
  const auto listed = [](int names, size_t name_bytes) {
    Pickler pickle;
    pickle.Proto(2).Dict().Mark();
    pickle.Str("first").Tensor("ByteStorage", "0", 1, 0, {1}, {1}).Put(0);
    for (int i = 0; i < names; ++i) {
      std::string name = absl::StrCat(i);
      name.resize(name_bytes, 'x');
      pickle.Str(name).Get(0);
    }
    return Listed(pickle.Raw("u"));
  };
  const absl::Status at = listed(10000, 1000);
  EXPECT_TRUE(at.ok()) << at;
  const absl::Status past = listed(40000, 1000);
  EXPECT_EQ(past.code(), StatusCode::kResourceExhausted) << past;
  EXPECT_TRUE(absl::StrContains(past.message(), "33554432")) << past;
}

TEST_F(Limits, BytesOfAllTensors) {
  // Of a file of one byte. The bytes at the limit cannot be read.
  const auto sums = [](int64_t n, int tensors, int alias) {
    FakeSource source;
    for (int i = 0; i < tensors; ++i) source.Add(absl::StrCat(i), {n}, DType::kU8, {0}, alias);
    return ChecksumTensors(source, "x").status();
  };
  constexpr int64_t kLimit = kMaxBytesPerFileByte + kMaxMoreBytes;
  ExpectLimit(
      kLimit, [&](int64_t n) { return sums(n, 1, -1); },
      "16 times those of its files (1), and 1073741824");
  ExpectLimit(
      kLimit / 2, [&](int64_t n) { return sums(n, 2, -1); },
      "16 times those of its files (1), and 1073741824");
  ExpectLimit(
      kLimit, [&](int64_t n) { return sums(n, 2, 7); },
      "16 times those of its files (1), and 1073741824");
}

TEST_F(Limits, TarMembers) {
  ExpectLimit(
      64,
      [](int64_t n) {
        std::string archive;
        for (int64_t i = 0; i < n; ++i) {
          std::string header(512, '\0');
          const std::string name = absl::StrCat("m", i);
          header.replace(0, name.size(), name);
          header.replace(124, 11, "00000000000");
          header.replace(148, 8, "        ");
          header[156] = '0';
          header.replace(257, 6, std::string("ustar\0", 6));
          unsigned sum = 0;
          for (const char c : header) sum += static_cast<uint8_t>(c);
          char text[8];
          std::snprintf(text, sizeof text, "%06o", sum);
          header.replace(148, 7, std::string(text, 7));
          archive += header;
        }
        const std::string path = TestPath("limit.tar");
        WriteFileOrDie(path, archive + std::string(1024, '\0'));
        return OpenTorchLegacy(path).status();
      },
      "64 tar members");
}

TEST_F(Limits, SafetensorsHeader) {
  ExpectLimit(
      100'000'000,
      [](int64_t n) {
        return OpenSafetensors(
                   SparseFile("limit.safetensors", Le(static_cast<uint64_t>(n), 8) + "{", n + 8))
            .status();
      },
      "the limit is 100000000");
}

TEST_F(Limits, GgufHeader) {
  // Two keys; the value of the first is an array that ends where the second begins.
  ExpectLimit(
      int64_t{512} << 20,
      [](int64_t n) {
        const std::string head =
            "GGUF" + Le(3, 4) + Le(0, 8) + Le(2, 8) + Le(1, 8) + "k" + Le(9, 4) + Le(0, 4);
        const uint64_t count = static_cast<uint64_t>(n) - head.size() - 8;
        return OpenGguf(SparseFile("limit.gguf", head + Le(count, 8), n + (1 << 20))).status();
      },
      "536870912");
}

TEST_F(Limits, GgufCounts) {
  const auto counts = [](uint64_t tensors, uint64_t keys) {
    return OpenGguf(SparseFile("limit.gguf", "GGUF" + Le(3, 4) + Le(tensors, 8) + Le(keys, 8),
                               int64_t{1} << 30))
        .status();
  };
  ExpectLimit(1 << 17, [&](int64_t n) { return counts(static_cast<uint64_t>(n), 0); }, "131072");
  ExpectLimit(1 << 16, [&](int64_t n) { return counts(0, static_cast<uint64_t>(n)); }, "65536");
}

TEST_F(Limits, GgufStrings) {
  const auto value = [](const std::string& type_and_value) {
    return OpenGguf(
               SparseFile("limit.gguf",
                          "GGUF" + Le(3, 4) + Le(0, 8) + Le(1, 8) + Le(1, 8) + "k" + type_and_value,
                          int64_t{1} << 28))
        .status();
  };
  ExpectLimit(
      16 << 20, [&](int64_t n) { return value(Le(8, 4) + Le(static_cast<uint64_t>(n), 8)); },
      "16777216");
  ExpectLimit(
      1 << 22,
      [&](int64_t n) { return value(Le(9, 4) + Le(8, 4) + Le(static_cast<uint64_t>(n), 8)); },
      "4194304");
}

TEST_F(Limits, ConfigBytesAndLayers) {
  ExpectLimit(
      4 << 20,
      [](int64_t n) {
        const std::string path = TestPath("config.json");
        WriteFileOrDie(path, "{}" + std::string(static_cast<size_t>(n) - 2, ' '));
        struct Nothing : TensorSource {
          absl::string_view container() const override { return "none"; }
          absl::Span<const SourceTensor> tensors() const override { return {}; }
          absl::Status Read(int, int64_t, int64_t, absl::Span<uint8_t>) const override {
            return absl::InternalError("nothing to read");
          }
          absl::Span<const std::pair<std::string, std::string>> metadata() const override {
            return {};
          }
          std::vector<std::pair<std::string, int64_t>> files() const override { return {}; }
        };
        return FindHyperparameters(Nothing(), TestPath(""), path, false).status();
      },
      "the limit is 4194304");
  ExpectLimit(
      4096,
      [](int64_t n) {
        return ParseConfig(
                   absl::StrCat(
                       R"({"architectures":["LlamaForCausalLM"],"model_type":"llama",)"
                       R"("hidden_size":64,"intermediate_size":172,"num_attention_heads":8,)"
                       R"("num_key_value_heads":4,"vocab_size":512,"rms_norm_eps":1e-5,)"
                       R"("max_position_embeddings":512,"num_hidden_layers":)",
                       n, "}"),
                   "config.json")
            .status();
      },
      "4096", StatusCode::kInvalidArgument);
}

TEST_F(Limits, Json) {
  ExpectLimit(
      kMaxJsonDepth,
      [](int64_t n) {
        const auto lists = static_cast<size_t>(n);
        return ParseJsonObject(std::string(lists, '[') + std::string(lists, ']'), "x").status();
      },
      "nested deeper than 100");
  ExpectLimit(
      kMaxJsonValues - 1,  // and the list of them
      [](int64_t n) {
        std::string ones;
        for (int64_t i = 0; i < n; ++i) ones += i == 0 ? "1" : ",1";
        return ParseJsonObject(absl::StrCat("[", ones, "]"), "x").status();
      },
      "more than 4194304 values");
}

TEST_F(Limits, ShardsAndIndex) {
  const std::string folder = TestPath("shards");
  (void)mkdir(folder.c_str(), 0700);
  const std::string index = folder + "/model.safetensors.index.json";
  ExpectLimit(
      int64_t{64} << 20,
      [&](int64_t n) {
        WriteFileOrDie(index, "[");
        EXPECT_EQ(truncate(index.c_str(), n), 0);
        return OpenCheckpoint(folder).status();
      },
      "the limit is 67108864");
  ExpectLimit(
      4096,
      [&](int64_t n) {
        std::string map;
        for (int64_t i = 0; i < n; ++i)
          absl::StrAppend(&map, i > 0 ? "," : "", "\"t", i, "\":\"s", i, "\"");
        WriteFileOrDie(index, absl::StrCat("{\"weight_map\":{", map, "}}"));
        return OpenCheckpoint(folder).status();
      },
      "at most 4096");
}

TEST_F(Limits, TokenizerFiles) {
  ExpectLimit(
      int64_t{256} << 20,
      [](int64_t n) { return ImportTokenizerFile(SparseFile("tokenizer.model", "", n)).status(); },
      "the limit is 268435456");
}

pb::Tokenizer Pieces(int n, size_t bytes) {
  pb::Tokenizer proto;
  proto.set_model(pb::Tokenizer::BPE_BY_MERGES);
  for (int i = 0; i < n; ++i) {
    std::string text = absl::StrCat(i);
    text.resize(std::max(bytes, text.size()), 'x');
    proto.mutable_piece_text()->append(text);
    proto.add_piece_length(static_cast<uint32_t>(text.size()));
    proto.mutable_piece_kind()->push_back(pb::NORMAL);
  }
  return proto;
}

TEST_F(Limits, TokenizerPiecesAndPatterns) {
  ExpectLimit(
      1024, [](int64_t n) { return Tokenizer::Create(Pieces(1, static_cast<size_t>(n))).status(); },
      "the limit is 1024");
  ExpectLimit(
      1 << 21, [](int64_t n) { return Tokenizer::Create(Pieces(static_cast<int>(n), 1)).status(); },
      "the limit is 2097152");
  ExpectLimit(
      16 << 10,
      [](int64_t n) {
        pb::Tokenizer proto = Pieces(1, 1);
        pb::TextStep* split = proto.add_pre_tokenizer();
        split->set_kind(pb::TextStep::SPLIT);
        split->set_pattern(std::string(static_cast<size_t>(n), 'a'));
        return Tokenizer::Create(std::move(proto)).status();
      },
      "the limit is 16384", StatusCode::kInvalidArgument);
  ExpectLimit(
      32,
      [](int64_t n) {
        pb::Tokenizer proto = Pieces(1, 1);
        for (int64_t i = 0; i < n; ++i) proto.add_normalizer()->set_kind(pb::TextStep::NFC);
        return Tokenizer::Create(std::move(proto)).status();
      },
      "the limit is 32");
}

TEST_F(Limits, ManifestAndTokenizerOfAFile) {
  const auto file = [](int64_t manifest_bytes) {
    const int64_t size = int64_t{128} << 20;
    Header header;
    header.manifest_bytes = manifest_bytes;
    header.file_bytes = size;
    std::string head(kHeaderBytes, '\0');
    header.Serialize(reinterpret_cast<uint8_t*>(&head[0]));
    return ModelFile::Open(SparseFile("limit.quire", head, size)).status();
  };
  ExpectLimit(kMaxManifestBytes, file, "the limit is 67108864");
  ExpectLimit(
      kMaxTokenizerBytes,
      [](int64_t n) {
        pb::Manifest manifest = TestManifest();
        return PlanFile(n, &manifest).status();
      },
      "the limit is 67108864");
}

TEST_F(Limits, TensorsOfAFile) {
  const auto check = [](const std::function<void(pb::Manifest*)>& change) {
    pb::Manifest manifest = TestManifest();
    change(&manifest);
    return CheckManifest(manifest);
  };
  ExpectLimit(
      kMaxNameBytes,
      [&](int64_t n) {
        return check([&](pb::Manifest* m) {
          m->mutable_tensors(0)->set_name(std::string(static_cast<size_t>(n), 'x'));
        });
      },
      "the limit is 256");
  ExpectLimit(
      kMaxTensors,
      [&](int64_t n) {
        return check([&](pb::Manifest* m) {
          const pb::TensorEntry tensor = m->tensors(1);
          m->clear_tensors();
          for (int64_t i = 0; i < n; ++i) {
            *m->add_tensors() = tensor;
            m->mutable_tensors(static_cast<int>(i))->set_name(absl::StrCat("t", i));
          }
        });
      },
      "the limit is 131072");
  ExpectLimit(
      kMaxDimension,
      [&](int64_t n) {
        return check([&](pb::Manifest* m) {
          m->mutable_tensors(1)->set_shape(0, static_cast<uint64_t>(n));
        });
      },
      "dimension 2147483649", StatusCode::kInvalidArgument);
  ExpectLimit(
      int64_t{1} << 31,
      [&](int64_t n) {
        return check([&](pb::Manifest* m) {
          pb::TensorEntry* matrix = m->mutable_tensors(2);
          // 2^31 x 2^13 is the limit; one row more is over it, and over that of a dimension.
          matrix->set_shape(0, n > kMaxDimension ? uint64_t{1} << 30 : uint64_t{1} << 31);
          matrix->set_shape(1, n > kMaxDimension ? (uint64_t{1} << 14) + 1 : uint64_t{1} << 13);
        });
      },
      "the limit is 17592186044416");
}

absl::Status Rendered(const std::string& source) {
  const auto chat = ChatTemplate::Create(source);
  if (!chat.ok()) return chat.status();
  return chat->Render({{"user", "x"}}, {"", "", true}).status();
}

TEST_F(Limits, ChatTemplates) {
  ExpectLimit(
      256 << 10, [](int64_t n) { return Rendered(std::string(static_cast<size_t>(n), 'x')); },
      "the limit is 262144");
  const auto range = [](int64_t n) {
    return Rendered(absl::StrCat("{% for i in range(", n, ") %}{% endfor %}"));
  };
  ExpectLimit(100000, range, "range");
  EXPECT_TRUE(
      Rendered("{% for i in range(400) %}{% for j in range(400) %}x{% endfor %}{% endfor %}").ok());
  EXPECT_EQ(
      Rendered("{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}")
          .code(),
      StatusCode::kResourceExhausted);
  const auto nested = [](int64_t n) {
    const auto depth = static_cast<size_t>(n);
    return Rendered("{{ " + std::string(depth, '(') + "1" + std::string(depth, ')') + " }}");
  };
  EXPECT_TRUE(nested(40).ok()) << nested(40);
  EXPECT_EQ(nested(101).code(), StatusCode::kResourceExhausted);
}

TEST_F(Limits, StreamsOfText) {
  // The prompt's limit is 64 MiB, by this function.
  ExpectLimit(
      int64_t{64} << 20,
      [](int64_t n) {
        return ReadStream(SparseFile("prompt", "x", n), int64_t{64} << 20).status();
      },
      "more than 67108864 bytes");
}

}  // namespace
}  // namespace quire
