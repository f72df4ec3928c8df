#include "tests/fuzz/sample_tokenizers.h"

#include <string>

namespace quire {
namespace {

uint32_t Add(pb::Tokenizer& tokenizer, const std::string& text, pb::PieceKind kind,
             const float* score) {
  tokenizer.mutable_piece_text()->append(text);
  tokenizer.add_piece_length(static_cast<uint32_t>(text.size()));
  tokenizer.mutable_piece_kind()->push_back(static_cast<char>(kind));
  if (score != nullptr) tokenizer.add_piece_score(*score);
  return static_cast<uint32_t>(tokenizer.piece_length_size()) - 1;
}

void AddBytes(pb::Tokenizer& tokenizer, bool scores) {
  const float zero = 0;
  for (int b = 0; b < 256; ++b) {
    Add(tokenizer, std::string(1, static_cast<char>(b)), pb::NORMAL, scores ? &zero : nullptr);
  }
}

pb::Tokenizer ByScore() {
  pb::Tokenizer t;
  t.set_model(pb::Tokenizer::BPE_BY_SCORE);
  t.set_byte_level(true);
  t.set_whole_words(true);
  AddBytes(t, true);
  float score = 0;
  for (const char* text : {"aa", " a", "aaaa", "12", "the", " the", "\xC3\xA9"}) {
    score -= 1;
    Add(t, text, pb::NORMAL, &score);
  }
  pb::TextStep* split = t.add_pre_tokenizer();
  split->set_kind(pb::TextStep::SPLIT);
  split->set_pattern(
      R"((?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
  return t;
}

pb::Tokenizer ByMerges() {
  pb::Tokenizer t;
  t.set_model(pb::Tokenizer::BPE_BY_MERGES);
  t.set_byte_level(true);
  AddBytes(t, false);
  const uint32_t space_a = Add(t, " a", pb::NORMAL, nullptr),
                 aa = Add(t, "aa", pb::NORMAL, nullptr);
  const struct {
    uint32_t left, right, result;
  } merges[] = {{' ', 'a', space_a}, {'a', 'a', aa}};
  for (const auto& merge : merges) {
    t.add_merge_left(merge.left);
    t.add_merge_right(merge.right);
    t.add_merge_rank(static_cast<uint32_t>(t.merge_rank_size()));
    t.add_merge_result(merge.result);
  }
  int i = 0;
  for (const char* text : {"<s>", "<|end|>", "<x>"}) {
    pb::AddedToken* added = t.add_added_tokens();
    added->set_id(Add(t, text, i < 2 ? pb::CONTROL : pb::USER_DEFINED, nullptr));
    added->set_special(i < 2);
    ++i;
  }
  t.set_bos_id(258);
  t.add_eos_ids(259);
  t.set_add_bos(true);
  pb::TextStep* split = t.add_pre_tokenizer();
  split->set_kind(pb::TextStep::SPLIT);
  split->set_pattern(R"( ?\p{L}+| ?\p{N}+|\s+)");
  return t;
}

pb::Tokenizer Sentencepiece(pb::Tokenizer::Model model) {
  pb::Tokenizer t;
  t.set_model(model);
  float score = 0;
  t.set_unknown_id(Add(t, "<unk>", pb::UNKNOWN, &score));
  t.set_bos_id(Add(t, "<s>", pb::CONTROL, &score));
  t.add_eos_ids(Add(t, "</s>", pb::CONTROL, &score));
  if (model == pb::Tokenizer::BPE_BY_SCORE) {
    t.set_byte_fallback(true);
    for (int b = 0; b < 256; ++b) {
      const char* hex = "0123456789ABCDEF";
      Add(t, std::string("<0x") + hex[b / 16] + hex[b % 16] + ">", pb::BYTE, &score);
    }
  }
  for (const char* text : {"\xE2\x96\x81", "a", "b", "t", "h", "e",
                           "\xE2\x96\x81"
                           "a",
                           "th", "the", "\xE2\x96\x81the", "aa"}) {
    score -= 1;
    Add(t, text, pb::NORMAL, &score);
  }
  t.set_fuse_unknown(true);
  t.set_add_bos(true);
  t.set_space_symbol(true);
  t.set_strip_leading_space(true);
  t.mutable_sentencepiece()->set_add_dummy_prefix(true);
  t.mutable_sentencepiece()->set_escape_whitespaces(true);
  t.mutable_sentencepiece()->set_remove_extra_whitespaces(model == pb::Tokenizer::UNIGRAM);
  return t;
}

}  // namespace

std::vector<pb::Tokenizer> SampleTokenizers() {
  return {ByScore(), ByMerges(), Sentencepiece(pb::Tokenizer::BPE_BY_SCORE),
          Sentencepiece(pb::Tokenizer::UNIGRAM)};
}

}  // namespace quire
