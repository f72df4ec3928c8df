// What an export does around the tensors: files of limited size, folders that are whole or absent,
// and tokenizers that contradict themselves. Contents are tested by tests/oracle/test_export.py.
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "convert/export/gguf_tokenizer_export.h"
#include "convert/export/huggingface_tokenizer_export.h"
#include "convert/export/new_folder.h"
#include "convert/export/safetensors_layout.h"
#include "convert/tokenizer_builder.h"
#include "format/file.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

OutputTensor Bytes(const std::string& name, int64_t n) {
  return FromBytes(name, "I8", {n}, std::string(static_cast<size_t>(n), 'x'));
}

TEST(SafetensorsLayout, OneFile) {
  const SafetensorsLayout layout = LayOutSafetensors({Bytes("a", 3), Bytes("b", 10)}, 13);
  ASSERT_EQ(layout.files.size(), 1u);
  EXPECT_EQ(layout.files[0].name, "model.safetensors");
  EXPECT_EQ(layout.index, "");
  const std::string& head = layout.files[0].head;
  EXPECT_EQ(head.size() % 8, 0u);
  const auto header = nlohmann::json::parse(head.substr(8), nullptr, false);
  EXPECT_EQ(header["b"]["data_offsets"], nlohmann::json({3, 13}));
  EXPECT_EQ(layout.files[0].tensors[1].offset, static_cast<int64_t>(head.size()) + 3);
  EXPECT_EQ(layout.files[0].bytes, static_cast<int64_t>(head.size()) + 13);
}

TEST(SafetensorsLayout, AnotherFileWhereOneWouldExceedTheLimit) {
  const SafetensorsLayout layout =
      LayOutSafetensors({Bytes("a", 3), Bytes("b", 10), Bytes("c", 1), Bytes("huge", 50)}, 12);
  ASSERT_EQ(layout.files.size(), 3u);
  EXPECT_EQ(layout.files[1].name, "model-00002-of-00003.safetensors");
  const auto index = nlohmann::json::parse(layout.index, nullptr, false);
  EXPECT_EQ(index["metadata"]["total_size"], 64);
  const nlohmann::json wanted = {{"a", "model-00001-of-00003.safetensors"},
                                 {"b", "model-00002-of-00003.safetensors"},
                                 {"c", "model-00002-of-00003.safetensors"},
                                 {"huge", "model-00003-of-00003.safetensors"}};
  EXPECT_EQ(index["weight_map"], wanted);
}

class NewFolderTest : public testing::Test {
 protected:
  NewFolderTest()
      : path_(absl::StrCat(testing::TempDir(), "/new_folder_",
                           testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  // A folder with one file of this name.
  void Make(const std::string& name) {
    mkdir(path_.c_str(), 0755);
    std::ofstream(path_ + "/" + name) << "old";
  }
  const std::string path_;
};

TEST_F(NewFolderTest, HasItsNameOnlyWhenItIsWhole) {
  auto folder = NewFolder::Create(path_ + "/", false);
  ASSERT_TRUE(folder.ok()) << folder.status();
  ASSERT_TRUE((*folder)->Write("config.json", "{}").ok());
  const std::string temporary = (*folder)->PathOf("config.json");
  EXPECT_TRUE(Exists(temporary));
  EXPECT_FALSE(Exists(path_));
  ASSERT_TRUE((*folder)->GiveName().ok());
  EXPECT_FALSE(Exists(temporary));
  EXPECT_EQ(*ReadWholeFile(path_ + "/config.json", 10), "{}");
  EXPECT_EQ(NewFolder::Create(path_, false).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(NewFolderTest, LeavesNothingWithoutAName) {
  auto folder = NewFolder::Create(path_, false);
  ASSERT_TRUE(folder.ok());
  ASSERT_TRUE((*folder)->Write("config.json", "{}").ok());
  const std::string temporary = FolderOf((*folder)->PathOf("config.json"));
  folder->reset();
  EXPECT_FALSE(Exists(temporary));
  EXPECT_FALSE(Exists(path_));
}

TEST_F(NewFolderTest, ReplacesAnExportAlone) {
  Make("config.json");
  auto folder = NewFolder::Create(path_, true);
  ASSERT_TRUE(folder.ok()) << folder.status();
  ASSERT_TRUE((*folder)->Write("tokenizer.json", "new").ok());
  ASSERT_TRUE((*folder)->GiveName().ok());
  folder->reset();
  EXPECT_TRUE(Exists(path_ + "/tokenizer.json"));
  EXPECT_FALSE(Exists(path_ + "/config.json"));

  Make("letter.txt");
  const absl::Status status = NewFolder::Create(path_, true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("letter.txt"), absl::string_view::npos) << status;
  EXPECT_TRUE(Exists(path_ + "/letter.txt"));
}

TEST_F(NewFolderTest, AForeignFileThatComesMeanwhileIsKept) {
  auto folder = NewFolder::Create(path_, true);
  ASSERT_TRUE(folder.ok());
  ASSERT_TRUE((*folder)->Write("config.json", "{}").ok());
  Make("letter.txt");
  EXPECT_EQ((*folder)->GiveName().code(), absl::StatusCode::kFailedPrecondition);
  folder->reset();
  EXPECT_EQ(*ReadWholeFile(path_ + "/letter.txt", 10), "old");
}

pb::Tokenizer TinyTokenizer() {
  pb::Tokenizer t;
  t.set_model(pb::Tokenizer::BPE_BY_MERGES);
  t.set_byte_level(true);
  for (const char* text : {"a", "b", "ab", "<s>"})
    AddPiece(text, text[0] == '<' ? pb::CONTROL : pb::NORMAL, &t);
  SetMerges({{0, 1, 0, 2}}, &t);
  t.add_added_tokens()->set_id(3);
  t.set_bos_id(3);
  absl::StatusOr<std::string> pattern = PatternToPcre2(kGpt2Pattern);
  AddSplit(*pattern, pb::TextStep::ISOLATED, &t);
  return t;
}

TEST(TokenizerExport, RowsWithoutATokenAreNamed) {
  std::vector<std::string> notes;
  const auto fields = ExportGgufTokenizer(TinyTokenizer(), 6, &notes);
  ASSERT_TRUE(fields.ok()) << fields.status();
  EXPECT_EQ(fields->pre, "gpt-2");
  EXPECT_EQ(fields->tokens, (std::vector<std::string>{"a", "b", "ab", "<s>", "[PAD4]", "[PAD5]"}));
  EXPECT_EQ(fields->token_types, (std::vector<int32_t>{1, 1, 1, 3, 5, 5}));
  EXPECT_EQ(fields->merges, std::vector<std::string>{"a b"});
  EXPECT_TRUE(notes.empty());
}

TEST(TokenizerExport, WhatLlamaCppCannotDoIsLeftOutAndNoted) {
  std::vector<std::string> notes;
  pb::Tokenizer odd = TinyTokenizer();
  odd.mutable_pre_tokenizer(0)->set_pattern("x+");
  EXPECT_EQ(ExportGgufTokenizer(odd, 4, &notes)->model, "none");
  EXPECT_EQ(ExportGgufTokenizer(TinyTokenizer(), 3, &notes)->model, "none");
  EXPECT_EQ(notes.size(), 2u);
}

TEST(TokenizerExport, ContradictionsAreRefused) {
  const auto refused = [](void (*damage)(pb::Tokenizer*)) {
    pb::Tokenizer t = TinyTokenizer();
    damage(&t);
    std::vector<std::string> notes;
    EXPECT_EQ(ExportGgufTokenizer(t, 4, &notes).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ExportHuggingFaceTokenizer(t, &notes).status().code(),
              absl::StatusCode::kInvalidArgument);
  };
  refused([](pb::Tokenizer* t) { t->set_piece_length(1, 1000); });
  refused([](pb::Tokenizer* t) { t->set_piece_length(1, 0); });
  refused([](pb::Tokenizer* t) { t->set_piece_kind("xx"); });
  refused([](pb::Tokenizer* t) { (*t->mutable_piece_kind())[0] = 9; });
  refused([](pb::Tokenizer* t) { t->add_piece_score(1); });
  refused([](pb::Tokenizer* t) { t->set_bos_id(4); });
  refused([](pb::Tokenizer* t) { t->add_eos_ids(1u << 31); });
  refused([](pb::Tokenizer* t) { t->set_unknown_id(4); });
  refused([](pb::Tokenizer* t) { t->add_added_tokens()->set_id(4); });
  refused([](pb::Tokenizer* t) { t->set_merge_left(0, 4); });
  refused([](pb::Tokenizer* t) { t->set_merge_result(0, 4); });
  refused([](pb::Tokenizer* t) { t->add_merge_rank(1); });
}

TEST(TokenizerExport, BytesOfGpt2BothWays) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(BytesOfByteLevel(ByteLevelOfBytes(all)), all);
  EXPECT_EQ(ByteLevelOfBytes(" the\n"), "\xC4\xA0the\xC4\x8A");
}

}  // namespace
}  // namespace quire
