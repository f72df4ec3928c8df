#include "runtime/tokenizer.h"

#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "format/test_caps.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

using Ids = std::vector<int32_t>;

void AddPiece(absl::string_view text, pb::PieceKind kind, pb::Tokenizer* proto, float score = 0) {
  proto->mutable_piece_text()->append(text.data(), text.size());
  proto->add_piece_length(static_cast<uint32_t>(text.size()));
  proto->mutable_piece_kind()->push_back(static_cast<char>(kind));
  if (proto->model() != pb::Tokenizer::BPE_BY_MERGES) proto->add_piece_score(score);
}

void AddMerge(uint32_t left, uint32_t right, uint32_t rank, uint32_t result, pb::Tokenizer* proto) {
  proto->add_merge_left(left);
  proto->add_merge_right(right);
  proto->add_merge_rank(rank);
  proto->add_merge_result(result);
}

pb::TextStep* AddSplit(const std::string& pattern, pb::Tokenizer* proto) {
  pb::TextStep* step = proto->add_pre_tokenizer();
  step->set_kind(pb::TextStep::SPLIT);
  step->set_pattern(pattern);
  return step;
}

// Ids 0..255 are the bytes; "aa", "aaaa", "b c"'s parts and a special token follow.
pb::Tokenizer ByteLevel() {
  pb::Tokenizer proto;
  proto.set_model(pb::Tokenizer::BPE_BY_MERGES);
  proto.set_byte_level(true);
  for (int b = 0; b < 256; ++b) AddPiece(std::string(1, static_cast<char>(b)), pb::NORMAL, &proto);
  AddPiece("aa", pb::NORMAL, &proto);            // 256
  AddPiece("aaaa", pb::NORMAL, &proto);          // 257
  AddPiece("<|end|>", pb::CONTROL, &proto);      // 258
  AddPiece("<tool>", pb::USER_DEFINED, &proto);  // 259
  AddMerge('a', 'a', 0, 256, &proto);
  AddMerge(256, 256, 1, 257, &proto);
  for (const uint32_t id : {258u, 259u}) {
    pb::AddedToken* token = proto.add_added_tokens();
    token->set_id(id);
    token->set_special(id == 258);
  }
  proto.set_bos_id(258);
  proto.add_eos_ids(258);
  return proto;
}

// Sentencepiece's kind: characters, byte fallback, spaces as U+2581.
pb::Tokenizer Sentencepiece(pb::Tokenizer::Model model) {
  pb::Tokenizer proto;
  proto.set_model(model);
  AddPiece("<unk>", pb::UNKNOWN, &proto);
  AddPiece("<s>", pb::CONTROL, &proto);
  AddPiece("</s>", pb::CONTROL, &proto);
  for (int b = 0; b < 256; ++b) AddPiece(absl::StrFormat("<0x%02X>", b), pb::BYTE, &proto);
  float score = -1;
  for (const char* text : {"\xE2\x96\x81", "a", "b",
                           "\xE2\x96\x81"
                           "a",
                           "ab", "aa",
                           "\xE2\x96\x81"
                           "ab"}) {
    AddPiece(text, pb::NORMAL, &proto, score--);
  }
  proto.set_unknown_id(0);
  proto.set_bos_id(1);
  proto.add_eos_ids(2);
  proto.set_add_bos(true);
  proto.set_byte_fallback(true);
  proto.mutable_sentencepiece()->set_add_dummy_prefix(true);
  proto.mutable_sentencepiece()->set_escape_whitespaces(true);
  proto.set_space_symbol(true);
  proto.set_strip_leading_space(true);
  return proto;
}

Tokenizer Make(pb::Tokenizer proto) {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(std::move(proto));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

Ids Encode(const Tokenizer& tokenizer, absl::string_view text, bool add_special = false,
           bool parse_special = false) {
  const absl::StatusOr<Ids> ids = tokenizer.Encode(text, {add_special, parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(Ids{});
}

void ExpectRefused(pb::Tokenizer proto, absl::StatusCode code, absl::string_view words) {
  const absl::Status status = Tokenizer::Create(std::move(proto)).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), words)) << status << "\nwant: " << words;
}

TEST(TokenizerTest, MergesByRankThenLeftmost) {
  const Tokenizer tokenizer = Make(ByteLevel());
  EXPECT_EQ(Encode(tokenizer, "aaaaaaa"), (Ids{257, 256, 'a'}));
  EXPECT_EQ(Encode(tokenizer, "baab"), (Ids{'b', 256, 'b'}));
}

TEST(TokenizerTest, MergesByScoreOverCharactersWithByteFallback) {
  const Tokenizer tokenizer = Make(Sentencepiece(pb::Tokenizer::BPE_BY_SCORE));
  const auto id = [&](absl::string_view text) {
    for (int i = 0; i < tokenizer.size(); ++i) {
      if (tokenizer.piece(i) == text) return i;
    }
    return -1;
  };
  // "_a" has a better score than "ab".
  EXPECT_EQ(Encode(tokenizer, "ab"), (Ids{id("\xE2\x96\x81"
                                             "ab")}));
  EXPECT_EQ(Encode(tokenizer, "\xC3\xA4"), (Ids{id("\xE2\x96\x81"), id("<0xC3>"), id("<0xA4>")}));
  EXPECT_EQ(tokenizer.Decode({id("\xE2\x96\x81"
                                 "ab"),
                              id("<0xC3>"), id("<0xA4>")}),
            "ab\xC3\xA4");
}

TEST(TokenizerTest, AddsAndParsesSpecialTokens) {
  pb::Tokenizer proto = ByteLevel();
  proto.set_add_bos(true);
  proto.set_add_eos(true);
  const Tokenizer tokenizer = Make(std::move(proto));
  EXPECT_EQ(Encode(tokenizer, "b", true), (Ids{258, 'b', 258}));
  EXPECT_EQ(Encode(tokenizer, "b<|end|>", false, true), (Ids{'b', 258}));
  EXPECT_EQ(Encode(tokenizer, "<|end|>").size(), 7u);
  // A token that is not special is one either way.
  EXPECT_EQ(Encode(tokenizer, "<tool>b"), (Ids{259, 'b'}));
  EXPECT_EQ(tokenizer.FindAddedToken("<|end|>"), 258);
  EXPECT_EQ(tokenizer.FindAddedToken("<|end|"), std::nullopt);
  EXPECT_EQ(tokenizer.FindAddedToken(""), std::nullopt);
  EXPECT_TRUE(tokenizer.is_eos(258));
  EXPECT_FALSE(tokenizer.is_eos('b'));
}

TEST(TokenizerTest, DecodesControlTokensAsNothingUnlessAsked) {
  const Tokenizer tokenizer = Make(ByteLevel());
  EXPECT_EQ(tokenizer.Decode({'b', 258, 259}), "b<tool>");
  EXPECT_EQ(tokenizer.Decode({'b', 258}, {/*print_special=*/true, false}), "b<|end|>");
  EXPECT_EQ(tokenizer.Decode({'b', -1, 99999, 'c'}), "bc");
  EXPECT_EQ(tokenizer.piece(-1), "");
  EXPECT_EQ(tokenizer.piece(tokenizer.size()), "");
}

TEST(TokenizerTest, LeadingSpaceIsStrippedFromWholeTextsAlone) {
  const Tokenizer tokenizer = Make(Sentencepiece(pb::Tokenizer::BPE_BY_SCORE));
  const Ids ids = Encode(tokenizer, "ab");
  EXPECT_EQ(tokenizer.Decode(ids), "ab");
  EXPECT_EQ(tokenizer.Decode(ids, {false, /*continues=*/true}), " ab");
}

TEST(StreamDecoderTest, NeverSplitsACharacter) {
  const Tokenizer tokenizer = Make(ByteLevel());
  StreamDecoder decoder(&tokenizer);
  EXPECT_EQ(decoder.Add(0xF0), "");
  EXPECT_EQ(decoder.Add(0x9F), "");
  EXPECT_EQ(decoder.Add(258), "");  // a control token between
  EXPECT_EQ(decoder.Add(0x98), "");
  EXPECT_EQ(decoder.Add(0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(decoder.Add(0xE2), "");
  EXPECT_EQ(decoder.Add('x'), "\xEF\xBF\xBDx");
  EXPECT_EQ(decoder.Add(0xE2), "");
  EXPECT_EQ(decoder.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(StreamDecoderTest, PrintsOneReplacementForEachBytePiece) {
  const Tokenizer tokenizer = Make(Sentencepiece(pb::Tokenizer::BPE_BY_SCORE));
  const auto byte = [](int b) { return 3 + b; };
  EXPECT_EQ(tokenizer.Decode({byte(0xE2), byte(0x96), byte('x')}), "\xEF\xBF\xBD\xEF\xBF\xBDx");
  EXPECT_EQ(tokenizer.Decode({byte(0xE2), byte(0x96)}), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(StreamDecoderTest, PartsAreUtf8AndAddUpWhateverTheIds) {
  const Tokenizer bytes = Make(ByteLevel());
  for (const pb::Tokenizer& proto : {ByteLevel(), Sentencepiece(pb::Tokenizer::UNIGRAM)}) {
    const Tokenizer tokenizer = Make(proto);
    std::mt19937 random(1);
    for (int round = 0; round < 5000; ++round) {
      Ids ids;
      for (int i = 0; i < 8; ++i)
        ids.push_back(static_cast<int32_t>(random() % (tokenizer.size() + 4)) - 2);
      StreamDecoder decoder(&tokenizer);
      std::string text;
      for (const int32_t id : ids) {
        const std::string part = decoder.Add(id);
        // What is UTF-8 passes a round through bytes unchanged.
        EXPECT_EQ(bytes.Decode(Encode(bytes, part)), part);
        text += part;
      }
      EXPECT_EQ(text + decoder.Finish(), tokenizer.Decode(ids));
    }
  }
}

// The cases of hostile tokenizers and prompts.

TEST(TokenizerHostileTest, PathologicalPatternTakesBoundedTime) {
  for (const char* pattern :
       {"(a+)+$", "(a|aa)+$", "(a*)*b", "(?:a?){30}a{30}", "(.*?,){20}x", "((((a*)*)*)*)*c"}) {
    pb::Tokenizer proto = ByteLevel();
    AddSplit(pattern, &proto);
    const Tokenizer tokenizer = Make(std::move(proto));
    for (const std::string& text :
         {std::string(30, 'a') + "b", std::string(20000, 'a') + "!", std::string(3000, ',')}) {
      const absl::StatusOr<Ids> ids = tokenizer.Encode(text);
      EXPECT_TRUE(ids.ok() || absl::IsResourceExhausted(ids.status())) << ids.status();
    }
  }
}

TEST(TokenizerHostileTest, PatternThatBacktracksWithoutEndIsRefused) {
  pb::Tokenizer proto = ByteLevel();
  AddSplit("(a+)+$", &proto);
  const absl::Status status = Make(std::move(proto)).Encode(std::string(64, 'a') + "b").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "(a+)+$")) << status;
}

TEST(TokenizerHostileTest, PatternsShareOneBudgetOverAllPartsOfAText) {
  pb::Tokenizer proto = ByteLevel();
  AddSplit("\n", &proto);
  AddSplit("(a+)+$", &proto);
  const Tokenizer tokenizer = Make(std::move(proto));
  // Each line by itself would pass.
  const std::string line = std::string(18, 'a') + "b\n";
  EXPECT_TRUE(tokenizer.Encode(line).ok());
  std::string text;
  for (int i = 0; i < 20000; ++i) text += line;
  const absl::Status status = tokenizer.Encode(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(TokenizerHostileTest, PatternThatDoesNotCompileIsRefused) {
  for (const std::string& pattern :
       std::vector<std::string>{"(", "[a", "a{2,1}", "(?<n", "\\C", std::string(20000, 'a')}) {
    pb::Tokenizer proto = ByteLevel();
    AddSplit(pattern, &proto);
    ExpectRefused(std::move(proto), absl::StatusCode::kInvalidArgument, "pattern");
  }
}

TEST(TokenizerHostileTest, MegabyteOfOneLetterTakesNearLinearTime) {
  AllowThisTest(4, 128);  // nine of them
  for (const pb::Tokenizer& proto : {ByteLevel(), Sentencepiece(pb::Tokenizer::BPE_BY_SCORE),
                                     Sentencepiece(pb::Tokenizer::UNIGRAM)}) {
    const Tokenizer tokenizer = Make(proto);
    for (const char c : {'a', 'A', ' '}) {
      const std::string text(1 << 20, c);
      EXPECT_EQ(tokenizer.Decode(Encode(tokenizer, text)), text);
    }
  }
}

TEST(TokenizerHostileTest, MegabyteOfMarksIsNormalizedInNearLinearTime) {
  pb::Tokenizer proto = ByteLevel();
  proto.add_normalizer()->set_kind(pb::TextStep::NFC);
  const Tokenizer tokenizer = Make(std::move(proto));
  std::string text = "a";
  while (text.size() < (1 << 20))
    text += "\xCC\x81\xCC\xA3";  // above, below: in the wrong order throughout
  Encode(tokenizer, text);
}

TEST(TokenizerHostileTest, IdOutOfRangeIsRefused) {
  for (const uint32_t id : {260u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    pb::Tokenizer proto = ByteLevel();
    proto.set_bos_id(id);
    ExpectRefused(proto, absl::StatusCode::kInvalidArgument, absl::StrCat("bos id ", id));
    proto = ByteLevel();
    proto.add_eos_ids(id);
    ExpectRefused(proto, absl::StatusCode::kInvalidArgument, absl::StrCat("eos id ", id));
    proto = ByteLevel();
    proto.set_unknown_id(id);
    ExpectRefused(proto, absl::StatusCode::kInvalidArgument, absl::StrCat("unknown id ", id));
    proto = ByteLevel();
    proto.add_added_tokens()->set_id(id);
    ExpectRefused(proto, absl::StatusCode::kInvalidArgument, absl::StrCat("id ", id));
  }
}

TEST(TokenizerHostileTest, DuplicatePieceIsRefused) {
  pb::Tokenizer proto = ByteLevel();
  AddPiece("aaaa", pb::NORMAL, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "pieces 257 and 260 are both \"aaaa\"");
  proto = Sentencepiece(pb::Tokenizer::UNIGRAM);
  AddPiece("<0x41>", pb::BYTE, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "both \"<0x41>\"");
  proto = ByteLevel();
  proto.add_added_tokens()->set_id(258);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "two added tokens are \"<|end|>\"");
}

TEST(TokenizerHostileTest, PiecesThatDoNotAddUpAreRefused) {
  pb::Tokenizer proto;
  proto.set_model(pb::Tokenizer::BPE_BY_MERGES);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "no pieces");
  ExpectRefused(pb::Tokenizer(), absl::StatusCode::kUnimplemented, "kind of model 0");
  proto = ByteLevel();
  proto.set_model(static_cast<pb::Tokenizer::Model>(77));
  ExpectRefused(proto, absl::StatusCode::kUnimplemented, "kind of model 77");
  proto = ByteLevel();
  proto.add_piece_length(1);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "260 piece kinds for 261 pieces");
  proto = ByteLevel();
  proto.mutable_piece_text()->pop_back();
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "add up to");
  proto = ByteLevel();
  proto.set_piece_length(0, 0xffffffffu);
  ExpectRefused(proto, absl::StatusCode::kResourceExhausted, "piece 0 has 4294967295 bytes");
  proto = ByteLevel();
  (*proto.mutable_piece_kind())[5] = 99;
  ExpectRefused(proto, absl::StatusCode::kUnimplemented, "piece 5 is of unknown kind 99");
  proto = ByteLevel();
  AddPiece("", pb::NORMAL, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "piece 260 is empty");
  proto = Sentencepiece(pb::Tokenizer::BPE_BY_SCORE);
  proto.mutable_piece_score()->RemoveLast();
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "piece scores");
  proto = Sentencepiece(pb::Tokenizer::UNIGRAM);
  proto.set_piece_score(7, std::numeric_limits<float>::quiet_NaN());
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "piece 7: its score");
  proto = Sentencepiece(pb::Tokenizer::UNIGRAM);
  AddPiece("<0x4g>", pb::BYTE, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "<0x4g>");
}

TEST(TokenizerHostileTest, LimitsHold) {
  pb::Tokenizer proto = ByteLevel();
  AddPiece(std::string(1024, 'x'), pb::NORMAL, &proto);
  EXPECT_TRUE(Tokenizer::Create(proto).ok());
  AddPiece(std::string(1025, 'x'), pb::NORMAL, &proto);
  ExpectRefused(proto, absl::StatusCode::kResourceExhausted, "1025 bytes, the limit is 1024");
  proto = ByteLevel();
  for (int i = 0; i < 33; ++i) proto.add_normalizer()->set_kind(pb::TextStep::NFC);
  ExpectRefused(proto, absl::StatusCode::kResourceExhausted, "33 steps of normalizer");
  proto = pb::Tokenizer();
  proto.set_model(pb::Tokenizer::BPE_BY_MERGES);
  proto.mutable_piece_length()->Resize((1 << 21) + 1, 0);
  ExpectRefused(proto, absl::StatusCode::kResourceExhausted, "2097153 pieces");
}

TEST(TokenizerHostileTest, TextThatGrowsWithoutMeasureIsRefused) {
  pb::Tokenizer proto = ByteLevel();
  for (int i = 0; i < 20; ++i) {
    pb::TextStep* step = proto.add_normalizer();
    step->set_kind(pb::TextStep::REPLACE);
    step->set_pattern("a");
    step->set_text("aaaaaaaa");
  }
  const absl::Status status = Make(std::move(proto)).Encode("a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

std::string Charsmap(const std::vector<uint32_t>& units, absl::string_view replacements) {
  std::string map;
  const auto add = [&](uint32_t value) {
    for (int i = 0; i < 4; ++i) map.push_back(static_cast<char>(value >> 8 * i));
  };
  add(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) add(unit);
  return map + std::string(replacements);
}

// A double array that maps "A" to the replacement at `value`: root 0, its children at 256 ^ label.
std::vector<uint32_t> TrieOfA(uint32_t value) {
  std::vector<uint32_t> units(1024, 0xffu);
  units[0] = 256 << 10;
  units[256 ^ 'A'] = static_cast<uint32_t>('A') | 1 << 8 | (512 ^ 256 ^ 'A') << 10;
  units[512] = 0x80000000u | value;
  return units;
}

TEST(TokenizerHostileTest, CharsmapOutOfRangeIsRefused) {
  const auto with = [](const std::string& map) {
    pb::Tokenizer proto = Sentencepiece(pb::Tokenizer::BPE_BY_SCORE);
    proto.mutable_sentencepiece()->set_precompiled_charsmap(map);
    return proto;
  };
  const absl::string_view kB("b\0", 2);
  const Tokenizer tokenizer = Make(with(Charsmap(TrieOfA(0), kB)));
  EXPECT_EQ(Encode(tokenizer, "aA"), Encode(tokenizer, "ab"));

  ExpectRefused(with("abc"), absl::StatusCode::kInvalidArgument, "3 bytes");
  ExpectRefused(with(std::string("\xff\xff\xff\x7f....", 8)), absl::StatusCode::kInvalidArgument,
                "a trie of 2147483647 bytes");
  ExpectRefused(with(Charsmap(TrieOfA(2), kB)), absl::StatusCode::kInvalidArgument,
                "refers to byte 2 of 2");
  ExpectRefused(with(Charsmap(TrieOfA(0x7fffffff), kB)), absl::StatusCode::kInvalidArgument,
                "refers to byte 2147483647");
  ExpectRefused(with(Charsmap(TrieOfA(0), "b")), absl::StatusCode::kInvalidArgument, "NUL");
  ExpectRefused(with(Charsmap(TrieOfA(0), absl::string_view("\xff\0", 2))),
                absl::StatusCode::kInvalidArgument, "UTF-8");
  ExpectRefused(with(Charsmap(TrieOfA(0), std::string(256, 'b') + '\0')),
                absl::StatusCode::kResourceExhausted, "longer than 255");
  std::vector<uint32_t> units = TrieOfA(0);
  units[256 ^ 'A'] =
      static_cast<uint32_t>('A') | 1 << 8 | 0x1fffffu << 10;  // its children lie beyond the array
  ExpectRefused(with(Charsmap(units, kB)), absl::StatusCode::kInvalidArgument, "leads to");
  // A node that is its own child: encoding ends where the text does.
  units = TrieOfA(0);
  units[256 ^ 'A'] = static_cast<uint32_t>('A') | static_cast<uint32_t>('A') << 10;
  Encode(Make(with(Charsmap(units, kB))), std::string(1000, 'A'));
}

TEST(TokenizerHostileTest, RandomCharsmapsAreRefusedOrHarmless) {
  std::mt19937 random(7);
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint32_t> units = TrieOfA(0);
    for (uint32_t changes = random() % 8; changes > 0; --changes)
      units[random() % units.size()] = random() >> random() % 32;
    pb::Tokenizer proto = Sentencepiece(pb::Tokenizer::BPE_BY_SCORE);
    proto.mutable_sentencepiece()->set_precompiled_charsmap(
        Charsmap(units, absl::string_view("b\0c\0", 4)));
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(std::move(proto));
    if (!tokenizer.ok()) continue;
    ++accepted;
    std::string text;
    for (int i = 0; i < 40; ++i)
      text.push_back(static_cast<char>(i % 3 == 0 ? 'A' : random() % 128));
    Encode(*tokenizer, text);
  }
  EXPECT_GT(accepted, 100);
}

TEST(TokenizerHostileTest, MergeOfUnknownPieceIsRefused) {
  pb::Tokenizer proto = ByteLevel();
  AddMerge(257, 9999, 2, 257, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "merge 2 is of pieces 257 and 9999");
  proto = ByteLevel();
  AddMerge(257, 257, 2, 0x80000000u, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "2147483648");
}

TEST(TokenizerHostileTest, MergesOutOfOrderOrUnevenAreRefused) {
  pb::Tokenizer proto = ByteLevel();
  AddMerge('a', 'a', 2, 256, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "merge 2 is not in ascending order");
  proto = ByteLevel();
  AddMerge(256, 256, 2, 257, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "merge 2 is not in ascending order");
  proto = ByteLevel();
  proto.add_merge_left(300);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "3 lefts, 2 rights");
  proto = ByteLevel();
  AddMerge(257, 'a', 2, 257, &proto);
  ExpectRefused(proto, absl::StatusCode::kInvalidArgument, "length differs");
}

TEST(TokenizerHostileTest, InvalidUtf8NulAndEmptyPromptHaveADefinedResult) {
  for (const pb::Tokenizer& proto : {ByteLevel(), Sentencepiece(pb::Tokenizer::BPE_BY_SCORE),
                                     Sentencepiece(pb::Tokenizer::UNIGRAM)}) {
    const Tokenizer tokenizer = Make(proto);
    const std::pair<absl::string_view, absl::string_view> cases[] = {
        {"a\xFF"
         "b",
         "a\xEF\xBF\xBD"
         "b"},
        {"\xE2\x96", "\xEF\xBF\xBD"},                              // cut off: one part
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},                  // too long a form
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},  // a surrogate
        {"\xF4\x90\x80\x80",
         "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},  // beyond U+10FFFF
        {absl::string_view("a\0b", 3), absl::string_view("a\0b", 3)},
    };
    for (const auto& [text, valid] : cases) {
      EXPECT_EQ(Encode(tokenizer, text), Encode(tokenizer, valid));
      EXPECT_EQ(tokenizer.Decode(Encode(tokenizer, text)), std::string(valid));
    }
    EXPECT_EQ(Encode(tokenizer, ""), Ids{});
    EXPECT_EQ(tokenizer.Decode({}), "");
  }
  EXPECT_EQ(Encode(Make(Sentencepiece(pb::Tokenizer::UNIGRAM)), "", /*add_special=*/true), Ids{1});
}

TEST(TokenizerHostileTest, ChatTemplateIsInertText) {
  pb::Tokenizer proto = ByteLevel();
  proto.set_chat_template("{{ raise_exception('never run') }}{% while");
  const Tokenizer tokenizer = Make(std::move(proto));
  EXPECT_EQ(Encode(tokenizer, "b"), Ids{'b'});
  EXPECT_EQ(tokenizer.chat_template(), "{{ raise_exception('never run') }}{% while");
}

TEST(TokenizerHostileTest, DamagedSectionsNeverCrash) {
  const std::string good[] = {ByteLevel().SerializeAsString(),
                              Sentencepiece(pb::Tokenizer::BPE_BY_SCORE).SerializeAsString(),
                              Sentencepiece(pb::Tokenizer::UNIGRAM).SerializeAsString()};
  std::mt19937 random(3);
  for (int round = 0; round < 6000; ++round) {
    std::string bytes = good[round % 3];
    for (uint32_t changes = 1 + random() % 4; changes > 0; --changes) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    pb::Tokenizer proto;
    if (!proto.ParseFromString(bytes)) continue;
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(std::move(proto));
    if (!tokenizer.ok()) {
      EXPECT_FALSE(tokenizer.status().message().empty());
      continue;
    }
    const absl::StatusOr<Ids> ids = tokenizer->Encode("aaab <|end|> \xC3\xA4<tool>", {true, true});
    if (!ids.ok()) continue;
    for (const int32_t id : *ids) EXPECT_LT(id, tokenizer->size());
    tokenizer->Decode(*ids);
  }
}

}  // namespace
}  // namespace quire
