// Meta's tokenizer.model of Llama 3: a tiktoken rank file.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "convert/quote.h"
#include "convert/tokenizer_builder.h"
#include "convert/tokenizer_files.h"

namespace quire {
namespace {

constexpr int kSpecialTokens = 256;

// Llama 3.1's names, which are Llama 3's and a few more for ids that were reserved.
std::vector<std::string> Llama3SpecialTokens() {
  std::vector<std::string> names = {"<|begin_of_text|>",
                                    "<|end_of_text|>",
                                    "<|reserved_special_token_0|>",
                                    "<|reserved_special_token_1|>",
                                    "<|finetune_right_pad_id|>",
                                    "<|reserved_special_token_2|>",
                                    "<|start_header_id|>",
                                    "<|end_header_id|>",
                                    "<|eom_id|>",
                                    "<|eot_id|>",
                                    "<|python_tag|>"};
  for (int i = 3; names.size() < kSpecialTokens; ++i)
    names.push_back(absl::StrCat("<|reserved_special_token_", i, "|>"));
  return names;
}

}  // namespace

bool LooksLikeTiktoken(absl::string_view content) {
  const std::vector<absl::string_view> fields =
      absl::StrSplit(content.substr(0, content.find('\n')), ' ');
  std::string bytes;
  int rank;
  return fields.size() == 2 && absl::Base64Unescape(fields[0], &bytes) &&
         absl::SimpleAtoi(fields[1], &rank);
}

absl::StatusOr<pb::Tokenizer> ImportTiktoken(absl::string_view content) {
  std::vector<std::string> pieces;
  int line_number = 0;
  for (const absl::string_view line : absl::StrSplit(content, '\n')) {
    ++line_number;
    if (line.empty()) continue;
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    std::string bytes;
    int64_t rank;
    if (fields.size() != 2 || !absl::Base64Unescape(fields[0], &bytes) ||
        !absl::SimpleAtoi(fields[1], &rank) || bytes.empty()) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "line %d is %s, want a base64 string and a rank", line_number, Quote(line)));
    }
    if (rank != static_cast<int64_t>(pieces.size())) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "line %d has rank %d, want %d: ranks count up from 0", line_number, rank, pieces.size()));
    }
    pieces.push_back(std::move(bytes));
  }
  pb::Tokenizer out;
  out.set_model(pb::Tokenizer::BPE_BY_SCORE);
  out.set_byte_level(true);
  out.set_whole_words(true);
  int single_bytes = 0;
  for (const std::string& piece : pieces) {
    single_bytes += piece.size() == 1;
    out.add_piece_score(-static_cast<float>(out.piece_score_size()));
    AddPiece(piece, pb::NORMAL, &out);
  }
  if (single_bytes != 256) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d pieces of a single byte, want all 256", single_bytes));
  }
  for (const std::string& name : Llama3SpecialTokens()) {
    const uint32_t id = out.piece_length_size();
    AddPiece(name, pb::CONTROL, &out);
    out.add_piece_score(0);
    pb::AddedToken* token = out.add_added_tokens();
    token->set_id(id);
    token->set_special(true);
    if (name == "<|begin_of_text|>") out.set_bos_id(id);
    if (name == "<|end_of_text|>" || name == "<|eom_id|>" || name == "<|eot_id|>")
      out.add_eos_ids(id);
  }
  out.set_add_bos(true);
  absl::StatusOr<std::string> pattern = PatternToPcre2(kLlama3Pattern);
  if (!pattern.ok()) return pattern.status();
  AddSplit(*pattern, pb::TextStep::ISOLATED, &out);
  return out;
}

}  // namespace quire
