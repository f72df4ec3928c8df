#include "convert/tokenizer_import.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "convert/tokenizer_builder.h"
#include "convert/tokenizer_files.h"
#include "format/test_caps.h"
#include "gtest/gtest.h"
#include "runtime/tokenizer.h"

namespace quire {
namespace {

// A byte-level tokenizer.json of three pieces and one special token;
constexpr char kJson[] = R"({
  "added_tokens": [{"id": 3, "content": "<|end|>", "special": true, "normalized": false}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "Ġa": 2}, "merges": ["Ġ a"]}
})";

std::string Replaced(std::string text, absl::string_view from, absl::string_view to) {
  const size_t at = text.find(std::string(from));
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), std::string(to));
}

class Folder {
 public:
  Folder() : path_(absl::StrCat(testing::TempDir(), "/tokenizer_import_", counter_++)) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  Folder& Write(const std::string& name, absl::string_view content) {
    std::ofstream(path_ + "/" + name, std::ios::binary)
        .write(content.data(), static_cast<std::streamsize>(content.size()));
    return *this;
  }
  pb::Tokenizer Import() const {
    absl::StatusOr<pb::Tokenizer> out = ImportTokenizerFolder(path_);
    EXPECT_TRUE(out.ok()) << out.status();
    return out.value_or(pb::Tokenizer());
  }

 private:
  static inline int counter_ = 0;
  std::string path_;
};

void ExpectStatus(const absl::Status& status, absl::StatusCode code, absl::string_view words) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), words)) << status << "\nwant: " << words;
  EXPECT_FALSE(absl::StrContains(status.message(), "\n")) << status;
}

void ExpectJsonStatus(absl::string_view json, absl::StatusCode code, absl::string_view words) {
  Folder folder;
  folder.Write("tokenizer.json", json);
  const absl::Status status = ImportTokenizerFolder(folder.path()).status();
  ExpectStatus(status, code, words);
  EXPECT_TRUE(absl::StrContains(status.message(), folder.path() + "/tokenizer.json: ")) << status;
}

std::vector<uint32_t> EosIds(const pb::Tokenizer& tokenizer) {
  return {tokenizer.eos_ids().begin(), tokenizer.eos_ids().end()};
}

TEST(BytesOfByteLevelTest, UndoesGpt2sStandIns) {
  EXPECT_EQ(BytesOfByteLevel("Ġthe"), " the");
  EXPECT_EQ(BytesOfByteLevel("Ċ"), "\n");
  EXPECT_EQ(BytesOfByteLevel("âĢĻ"), "\xE2\x80\x99");
  EXPECT_EQ(BytesOfByteLevel("Ń"), "\xAD");
  EXPECT_EQ(BytesOfByteLevel("Ā"), std::string(1, '\0'));
  EXPECT_EQ(BytesOfByteLevel(" "), std::nullopt);
  EXPECT_EQ(BytesOfByteLevel("日"), std::nullopt);
  EXPECT_EQ(BytesOfByteLevel("\xC4"), std::nullopt);
}

TEST(PatternToPcre2Test, RefusesWhatPcre2ReadsDifferently) {
  EXPECT_TRUE(PatternToPcre2(kGpt2Pattern).ok());
  EXPECT_TRUE(PatternToPcre2(kLlama3Pattern).ok());
  EXPECT_TRUE(PatternToPcre2(kQwen2Pattern).ok());
  EXPECT_TRUE(PatternToPcre2(kTekkenPattern).ok());
  EXPECT_TRUE(PatternToPcre2(R"([[:alpha:]]+|[]a]|[^]a]|\[)").ok());
  ExpectStatus(PatternToPcre2("[a[bc]]").status(), absl::StatusCode::kUnimplemented,
               "a class in a class");
  ExpectStatus(PatternToPcre2("[a&&b]").status(), absl::StatusCode::kUnimplemented, "intersection");
  ExpectStatus(PatternToPcre2("\\h").status(), absl::StatusCode::kUnimplemented, "\\h");
  ExpectStatus(PatternToPcre2("[a\\S]").status(), absl::StatusCode::kUnimplemented, "\\S");
  ExpectStatus(PatternToPcre2("(").status(), absl::StatusCode::kInvalidArgument, "pattern \"(\"");
}

TEST(TokenizerImportTest, ReadsAByteLevelTokenizer) {
  Folder folder;
  const pb::Tokenizer tokenizer = folder.Write("tokenizer.json", kJson).Import();
  EXPECT_TRUE(tokenizer.byte_level());
  EXPECT_EQ(tokenizer.piece_text(), "a  a<|end|>");
  ASSERT_EQ(tokenizer.merge_left_size(), 1);
  EXPECT_EQ(tokenizer.merge_result(0), 2u);
  EXPECT_FALSE(tokenizer.add_bos());
  EXPECT_TRUE(EosIds(tokenizer).empty());
}

TEST(TokenizerImportTest, ConfigsNameTheSpecialTokens) {
  const std::string json = Replaced(
      kJson, R"("content": "<|end|>", "special": true, "normalized": false})",
      R"("content": "<|end|>", "special": true}, {"id": 4, "content": "<|b|>", "special": true},
                                       {"id": 5, "content": "<|x|>", "special": true})");
  Folder folder;
  folder.Write("tokenizer.json", json);
  folder.Write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<|b|>"}, "eos_token": "<|end|>", "chat_template": "T"})");
  folder.Write("generation_config.json", R"({"eos_token_id": [5, 3, 99999]})");
  folder.Write("config.json", R"({"eos_token_id": 4, "bos_token_id": 0})");
  pb::Tokenizer tokenizer = folder.Import();
  EXPECT_EQ(tokenizer.bos_id(), 4u);
  EXPECT_FALSE(tokenizer.add_bos());  // only the post-processor, or a Llama class, adds it
  EXPECT_EQ(EosIds(tokenizer), (std::vector<uint32_t>{3, 5, 4}));
  EXPECT_EQ(tokenizer.chat_template(), "T");

  folder.Write("tokenizer_config.json",
               R"({"tokenizer_class": "LlamaTokenizer", "bos_token": "<|b|>",
      "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]})");
  tokenizer = folder.Import();
  EXPECT_TRUE(tokenizer.add_bos());
  EXPECT_EQ(tokenizer.chat_template(), "yes");

  folder.Write(
      "tokenizer_config.json",
      R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<|b|>", "add_bos_token": false})");
  folder.Write("special_tokens_map.json", R"({"eos_token": {"content": "<|x|>"}})");
  folder.Write("chat_template.jinja", "from the file");
  tokenizer = folder.Import();
  EXPECT_FALSE(tokenizer.add_bos());
  EXPECT_EQ(EosIds(tokenizer), (std::vector<uint32_t>{5, 3, 4}));
  EXPECT_EQ(tokenizer.chat_template(), "from the file");
}

TEST(TokenizerImportTest, PostProcessorAddsTokens) {
  const std::string json = Replaced(kJson, R"("post_processor": null)",
                                    R"("post_processor": {"type": "Sequence", "processors": [
      {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [3], "tokens": ["<|end|>"]}}}]})");
  Folder folder;
  const pb::Tokenizer tokenizer = folder.Write("tokenizer.json", json).Import();
  EXPECT_TRUE(tokenizer.add_bos());
  EXPECT_EQ(tokenizer.bos_id(), 3u);
  ExpectJsonStatus(Replaced(json, "\"ids\": [3]", "\"ids\": [4]"),
                   absl::StatusCode::kInvalidArgument, "one known id for '<|end|>'");
}

TEST(TokenizerImportTest, UnknownKindsAreRefusedByName) {
  const auto code = absl::StatusCode::kUnimplemented;
  ExpectJsonStatus(Replaced(kJson, "\"BPE\"", "\"WordPiece\""), code,
                   "model.type: 'WordPiece', supported is BPE");
  ExpectJsonStatus(
      Replaced(kJson, "\"normalizer\": null", "\"normalizer\": {\"type\": \"Lowercase\"}"), code,
      "'Lowercase', supported are");
  ExpectJsonStatus(
      Replaced(kJson, "\"type\": \"ByteLevel\", \"add", "\"type\": \"BertPreTokenizer\", \"add"),
      code, "'BertPreTokenizer'");
  ExpectJsonStatus(
      Replaced(kJson, "\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": {\"type\": \"CTC\"}"),
      code, "'CTC'");
  ExpectJsonStatus(Replaced(kJson, "\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": null"),
                   code, "without a decoder");
  ExpectJsonStatus(Replaced(kJson, "\"post_processor\": null",
                            "\"post_processor\": {\"type\": \"BertProcessing\"}"),
                   code, "'BertProcessing'");
  ExpectJsonStatus(Replaced(kJson, "\"merges\"", "\"end_of_word_suffix\": \"</w>\", \"merges\""),
                   code, "end_of_word_suffix");
}

// The cases of hostile tokenizer files.

TEST(TokenizerImportTest, AddedTokensWithoutARowAreLeftOut) {
  pb::Tokenizer tokenizer;
  tokenizer.set_model(pb::Tokenizer::BPE_BY_MERGES);
  for (const char* piece : {"a", "b", "<s>", "<pad>", "<x>"})
    AddPiece(piece, pb::NORMAL, &tokenizer);
  for (const uint32_t id : {2, 3, 4}) tokenizer.add_added_tokens()->set_id(id);
  for (const uint32_t id : {4, 2}) tokenizer.add_eos_ids(id);
  tokenizer.set_bos_id(3);
  tokenizer.set_add_bos(true);
  pb::Tokenizer same = tokenizer;
  EXPECT_TRUE(LeaveOutTokensFrom(5, &same)->empty());
  EXPECT_EQ(same.SerializeAsString(), tokenizer.SerializeAsString());

  EXPECT_EQ(*LeaveOutTokensFrom(3, &tokenizer), (std::vector<std::string>{"<pad>", "<x>"}));
  EXPECT_EQ(tokenizer.piece_text(), "ab<s>");
  EXPECT_EQ(tokenizer.piece_length_size(), 3);
  EXPECT_EQ(tokenizer.piece_kind().size(), 3u);
  ASSERT_EQ(tokenizer.added_tokens_size(), 1);
  EXPECT_EQ(tokenizer.added_tokens(0).id(), 2u);
  EXPECT_EQ(EosIds(tokenizer), std::vector<uint32_t>{2});
  EXPECT_FALSE(tokenizer.has_bos_id() || tokenizer.add_bos());
  EXPECT_TRUE(Tokenizer::Create(tokenizer).ok());

  const absl::Status status = LeaveOutTokensFrom(1, &tokenizer).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "the tokenizer has 3 pieces, the embedding 1 rows");
}

TEST(TokenizerImportHostileTest, TokenIdOutOfRangeIsRefused) {
  for (const char* id :
       {"2147483648", "-1", "4294967296", "18446744073709551615", "1e5", "\"1\"", "100000"}) {
    ExpectJsonStatus(Replaced(kJson, "\"Ġ\": 1", absl::StrCat("\"Ġ\": ", id)),
                     absl::StatusCode::kInvalidArgument, "'Ġ' has id");
  }
  ExpectJsonStatus(Replaced(kJson, "\"id\": 3", "\"id\": 2147483648"),
                   absl::StatusCode::kInvalidArgument, "id 2147483648");
  ExpectJsonStatus(Replaced(kJson, "\"id\": 3", "\"id\": -3"), absl::StatusCode::kInvalidArgument,
                   "added_tokens");
}

TEST(TokenizerImportHostileTest, DuplicateIdsAreRefused) {
  ExpectJsonStatus(Replaced(kJson, "\"Ġ\": 1", "\"Ġ\": 0"), absl::StatusCode::kInvalidArgument,
                   "both have id 0");
  ExpectJsonStatus(Replaced(kJson, "\"id\": 3", "\"id\": 2"), absl::StatusCode::kInvalidArgument,
                   "'<|end|>' has id 2");
  ExpectJsonStatus(Replaced(kJson, "\"content\": \"<|end|>\"", "\"content\": \"a\""),
                   absl::StatusCode::kInvalidArgument, "it also has id 0");
}

TEST(TokenizerImportHostileTest, MergeOfUnknownTokenIsRefused) {
  ExpectJsonStatus(Replaced(kJson, "\"Ġ a\"", "\"Ġ b\""), absl::StatusCode::kInvalidArgument,
                   "merge 0 of 'Ġ' and 'b': 'b' is not");
  ExpectJsonStatus(Replaced(kJson, "\"Ġ a\"", "\"a Ġ\""), absl::StatusCode::kInvalidArgument,
                   "'aĠ' is not in model.vocab");
  for (const char* merge :
       {"\"a\"", "\"a \"", "\" a\"", "[\"a\"]", "[1, 2]", "null", "[\"a\", \"\"]"}) {
    ExpectJsonStatus(Replaced(kJson, "\"Ġ a\"", merge), absl::StatusCode::kInvalidArgument,
                     "want two tokens");
  }
}

TEST(TokenizerImportHostileTest, JsonOfTheWrongShapeIsRefused) {
  const auto code = absl::StatusCode::kInvalidArgument;
  ExpectJsonStatus("{", code, "not a JSON object");
  ExpectJsonStatus("{}", code, "model: want an object");
  ExpectJsonStatus(R"({"model": {"type": "BPE"}})", code, "model.vocab");
  ExpectJsonStatus(R"({"model": {"type": "BPE", "vocab": []}})", code, "model.vocab");
  ExpectJsonStatus(Replaced(kJson, R"(["Ġ a"])", "7"), code, "model.merges");
  ExpectJsonStatus(Replaced(kJson, "\"merges\"", "\"unk_token\": \"nowhere\", \"merges\""), code,
                   "'nowhere' is not in model.vocab");
  ExpectJsonStatus(
      Replaced(kJson, "\"normalizer\": null", "\"normalizer\": {\"type\": \"Sequence\"}"), code,
      "normalizers");
  ExpectJsonStatus(std::string("{\"a\":") + std::string(200000, '['),
                   absl::StatusCode::kResourceExhausted, "nested deeper than 100");
  std::string nested = "null";
  for (int i = 0; i < 40; ++i)
    nested = absl::StrCat(R"({"type": "Sequence", "normalizers": [)", nested, "]}");
  ExpectJsonStatus(Replaced(kJson, "\"normalizer\": null", "\"normalizer\": " + nested),
                   absl::StatusCode::kResourceExhausted, "more than 32");
}

TEST(TokenizerImportHostileTest, OtherFilesAreRefused) {
  const std::pair<absl::string_view, absl::string_view> cases[] = {
      {"", "an empty file"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"},
      {"<!DOCTYPE html><html></html>", "begins with '<!DOCTYPE html><'"},
      {"\x0a\xff\xff\xff\xff\x0f", "none of the known tokenizer files"},
      {absl::string_view("\0\0\0\0", 4), "none of the known tokenizer files"},
  };
  for (const auto& [content, words] : cases) {
    Folder folder;
    folder.Write("tokenizer.model", content);
    ExpectStatus(ImportTokenizerFolder(folder.path()).status(), absl::StatusCode::kInvalidArgument,
                 words);
  }
  Folder folder;
  ExpectStatus(ImportTokenizerFolder(folder.path()).status(), absl::StatusCode::kNotFound,
               "no tokenizer.json");
  ExpectStatus(ImportTokenizerFile(folder.path() + "/x").status(), absl::StatusCode::kNotFound,
               "/x");
}

TEST(TokenizerImportHostileTest, DamagedConfigIsRefused) {
  Folder folder;
  folder.Write("tokenizer.json", kJson).Write("tokenizer_config.json", "{");
  ExpectStatus(ImportTokenizerFolder(folder.path()).status(), absl::StatusCode::kInvalidArgument,
               "tokenizer_config.json: not a JSON object");
  // Values of the wrong type are as good as absent.
  folder.Write("tokenizer_config.json",
               R"({"bos_token": 7, "eos_token": [], "chat_template": {}, "add_bos_token": "x"})");
  folder.Write("generation_config.json", R"({"eos_token_id": ["x", -1, 1e30, null, [3]]})");
  EXPECT_TRUE(EosIds(folder.Import()).empty());
}

TEST(TokenizerImportHostileTest, EndsAreCountedOnceInLinearTime) {
  AllowThisTest(2, 160);  // of 400,000 tokens
  constexpr int kTokens = 400000;
  std::string vocabulary, ends;
  for (int i = 0; i < kTokens; ++i) {
    absl::StrAppend(&vocabulary, i == 0 ? "" : ",", "\"t", i, "\":", i);
    absl::StrAppend(&ends, kTokens - 1 - i, ",");
  }
  Folder folder;
  folder.Write(
      "tokenizer.json",
      absl::StrCat(
          R"({"model": {"type": "BPE", "merges": [], "vocab": {)", vocabulary,
          R"(}}, "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"}})"));
  folder.Write("generation_config.json", absl::StrCat(R"({"eos_token_id": [)", ends, "7]}"));
  const std::vector<uint32_t> ids = EosIds(folder.Import());
  ASSERT_EQ(ids.size(), size_t{kTokens});
  EXPECT_EQ(ids.front(), kTokens - 1u);
  EXPECT_EQ(ids.back(), 0u);
}

std::string Tiktoken() {
  std::string out;
  for (int b = 0; b < 256; ++b)
    absl::StrAppend(&out, absl::Base64Escape(std::string(1, static_cast<char>(b))), " ", b, "\n");
  return out + absl::Base64Escape("aa") + " 256\n";
}

TEST(TiktokenTest, HasLlama3sSpecialTokens) {
  const absl::StatusOr<pb::Tokenizer> tokenizer = ImportTiktoken(Tiktoken());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->piece_length_size(), 257 + 256);
  EXPECT_EQ(tokenizer->bos_id(), 257u);
  EXPECT_EQ(EosIds(*tokenizer), (std::vector<uint32_t>{258, 265, 266}));
}

TEST(TiktokenTest, DamagedLinesAreRefused) {
  const auto code = absl::StatusCode::kInvalidArgument;
  ExpectStatus(ImportTiktoken(Replaced(Tiktoken(), " 7\n", " 8\n")).status(), code,
               "line 8 has rank 8, want 7");
  ExpectStatus(ImportTiktoken(Replaced(Tiktoken(), " 7\n", " 2147483648\n")).status(), code,
               "rank 2147483648");
  ExpectStatus(ImportTiktoken(Replaced(Tiktoken(), " 7\n", "\n")).status(), code, "line 8");
  ExpectStatus(ImportTiktoken(Replaced(Tiktoken(), "AA==", "!!!!")).status(), code, "line 1");
  ExpectStatus(ImportTiktoken(Tiktoken().substr(0, 700)).status(), code, "");
  ExpectStatus(ImportTiktoken("YWE= 0\n").status(), code, "0 pieces of a single byte");
}

GgufTokenizerFields Gguf() {
  GgufTokenizerFields fields;
  fields.model = "gpt2";
  fields.pre = "smollm";
  fields.tokens = {"a", "Ġ", "Ġa", "<|end|>"};
  fields.token_types = {1, 1, 1, 3};
  fields.merges = {"Ġ a"};
  fields.eos_id = 3;
  return fields;
}

TEST(GgufTokenizerTest, ReadsByteLevelTokens) {
  const absl::StatusOr<pb::Tokenizer> tokenizer = ImportGgufTokenizer(Gguf());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->piece_text(), "a  a<|end|>");
  EXPECT_EQ(tokenizer->pre_tokenizer_size(), 2);
  EXPECT_EQ(EosIds(*tokenizer), (std::vector<uint32_t>{3}));
}

TEST(GgufTokenizerTest, BadFieldsAreRefused) {
  const auto refused = [](absl::StatusCode code, absl::string_view words,
                          const std::function<void(GgufTokenizerFields*)>& change) {
    GgufTokenizerFields fields = Gguf();
    change(&fields);
    ExpectStatus(ImportGgufTokenizer(fields).status(), code, words);
  };
  const auto invalid = absl::StatusCode::kInvalidArgument,
             unimplemented = absl::StatusCode::kUnimplemented;
  refused(unimplemented, "'bert', supported are gpt2 and llama",
          [](auto* f) { f->model = "bert"; });
  refused(unimplemented, "tokenizer.ggml.pre: 'deepseek', supported are gpt-2",
          [](auto* f) { f->pre = "deepseek"; });
  refused(invalid, "tokens: absent", [](auto* f) { f->tokens.clear(); });
  refused(invalid, "2 values for 4 tokens", [](auto* f) { f->scores = {1, 2}; });
  refused(invalid, "1 values for 4 tokens", [](auto* f) { f->token_types = {1}; });
  refused(invalid, "token 1 has type 7", [](auto* f) { f->token_types[1] = 7; });
  refused(invalid, "token 1 has type 0", [](auto* f) { f->token_types[1] = 0; });
  refused(invalid, "merge 0 'x y'", [](auto* f) { f->merges = {"x y"}; });
  refused(invalid, "merge 0 'xy' is not two tokens", [](auto* f) { f->merges = {"xy"}; });
  refused(invalid, "eos_token_id: id 2147483648 of 4", [](auto* f) { f->eos_id = 0x80000000u; });
  refused(invalid, "bos_token_id: id 4 of 4", [](auto* f) { f->bos_id = 4; });
  refused(invalid, "scores: absent", [](auto* f) { f->model = "llama"; });
}

TEST(TokenizerImportHostileTest, DamagedFilesNeverCrash) {
  std::mt19937 random(11);
  const std::string json = kJson, ranks = Tiktoken();
  const std::string model = "\x0a\x0e\x0a\x05<unk>\x15" + std::string(4, '\0') +
                            "\x18\x02\x0a\x08\x0a\x01"
                            "a\x15" +
                            std::string(4, '\0');
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = round % 3 == 0 ? json : round % 3 == 1 ? ranks : model;
    for (uint32_t changes = 1 + random() % 3; changes > 0; --changes)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    const absl::StatusOr<pb::Tokenizer> out = round % 3 == 0   ? ImportHuggingFaceJson(bytes)
                                              : round % 3 == 1 ? ImportTiktoken(bytes)
                                                               : ImportSentencepieceModel(bytes);
    EXPECT_TRUE(out.ok() || !out.status().message().empty());
  }
}

}  // namespace
}  // namespace quire
