// The tokenizer in a GGUF file's metadata.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "convert/quote.h"
#include "convert/tokenizer_builder.h"
#include "convert/tokenizer_import.h"

namespace quire {
namespace {

// How texts are cut, by tokenizer.ggml.pre. Files without it were made before llama.cpp told models
// apart.
struct PreTokenizer {
  const char* name;
  bool nfc;                 // the model's own library normalizes first
  const char* patterns[4];  // applied in turn
  bool whole_words;
  bool add_bos;  // where the file does not say
};
constexpr PreTokenizer kPreTokenizers[] = {
    {"gpt-2", false, {kGpt2Pattern}, false, false},
    {"smollm", false, {R"(\p{N})", kGpt2Pattern}, false, false},
    {"llama-bpe", false, {kLlama3Pattern}, true, true},
    {"llama3", false, {kLlama3Pattern}, true, true},
    {"llama-v3", false, {kLlama3Pattern}, true, true},
    {"qwen2", true, {kQwen2Pattern}, false, false},
    {"tekken", false, {kTekkenPattern}, true, true},
    {"default",
     false,
     {R"([\p{P}$+<=>^~|]+)", kGpt2Pattern, R"(\p{N}+)", "[0-9][0-9][0-9]"},
     false,
     false},
};

absl::Status AddSplits(const PreTokenizer& pre, pb::Tokenizer* out) {
  for (const char* source : pre.patterns) {
    if (source == nullptr) break;
    absl::StatusOr<std::string> pattern = PatternToPcre2(source);
    if (!pattern.ok()) return pattern.status();
    AddSplit(*pattern, pb::TextStep::ISOLATED, out);
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(const GgufTokenizerFields& fields) {
  const size_t n = fields.tokens.size();
  if (n == 0) return absl::InvalidArgumentError("tokenizer.ggml.tokens: absent or empty");
  if (!fields.scores.empty() && fields.scores.size() != n) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tokenizer.ggml.scores: %d values for %d tokens", fields.scores.size(), n));
  }
  if (!fields.token_types.empty() && fields.token_types.size() != n) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "tokenizer.ggml.token_type: %d values for %d tokens", fields.token_types.size(), n));
  }
  return absl::OkStatus();
}

absl::Status AddTokens(const GgufTokenizerFields& fields, pb::Tokenizer* out) {
  for (size_t id = 0; id < fields.tokens.size(); ++id) {
    const int type = fields.token_types.empty() ? int{pb::NORMAL} : fields.token_types[id];
    // GGUF's token types are sentencepiece's.
    if (type < pb::NORMAL || type > pb::BYTE) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.token_type: token %d has type %d", id, type));
    }
    const auto kind = static_cast<pb::PieceKind>(type);
    std::string text = fields.tokens[id];
    if (out->byte_level() && kind == pb::NORMAL) {
      const std::optional<std::string> bytes = BytesOfByteLevel(text);
      // A token that no text can give keeps its spelling.
      AddPiece(bytes.value_or(text), bytes.has_value() ? pb::NORMAL : pb::USER_DEFINED, out);
    } else {
      AddPiece(text, kind, out);
    }
    const bool special = kind == pb::CONTROL || kind == pb::UNKNOWN;
    if ((special || (out->byte_level() && kind == pb::USER_DEFINED)) && !text.empty()) {
      pb::AddedToken* token = out->add_added_tokens();
      token->set_id(static_cast<uint32_t>(id));
      token->set_special(special);
    }
  }
  return absl::OkStatus();
}

absl::Status AddMerges(const GgufTokenizerFields& fields, pb::Tokenizer* out) {
  absl::flat_hash_map<absl::string_view, uint32_t> ids;
  for (size_t id = 0; id < fields.tokens.size(); ++id) {
    ids.emplace(fields.tokens[id], static_cast<uint32_t>(id));
  }
  std::vector<Merge> merges;
  for (size_t k = 0; k < fields.merges.size(); ++k) {
    const absl::string_view merge = fields.merges[k];
    // A left part may begin with a space only in models whose pieces hold spaces; none of those
    // supported do.
    const size_t space = merge.find(' ');
    const auto bad = [&](absl::string_view what) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.merges: merge ", k, " ", Quote(merge), " ", what));
    };
    if (space == absl::string_view::npos || space == 0 || space + 1 == merge.size())
      return bad("is not two tokens");
    const absl::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    const auto l = ids.find(left), r = ids.find(right),
               joined = ids.find(absl::StrCat(left, right));
    if (l == ids.end() || r == ids.end() || joined == ids.end())
      return bad("is of tokens that are not in the vocabulary");
    merges.push_back({l->second, r->second, static_cast<uint32_t>(k), joined->second});
  }
  SetMerges(std::move(merges), out);
  return absl::OkStatus();
}

absl::Status ImportByteLevel(const GgufTokenizerFields& fields, pb::Tokenizer* out) {
  const PreTokenizer* pre = nullptr;
  std::string known;
  for (const PreTokenizer& p : kPreTokenizers) {
    if ((fields.pre.empty() ? "default" : fields.pre) == p.name) pre = &p;
    absl::StrAppend(&known, known.empty() ? "" : ", ", p.name);
  }
  if (pre == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("tokenizer.ggml.pre: ", Quote(fields.pre), ", supported are ", known));
  }
  out->set_model(pb::Tokenizer::BPE_BY_MERGES);
  out->set_byte_level(true);
  out->set_whole_words(pre->whole_words);
  out->set_add_bos(fields.add_bos.value_or(pre->add_bos));
  if (pre->nfc) out->add_normalizer()->set_kind(pb::TextStep::NFC);
  if (absl::Status status = AddSplits(*pre, out); !status.ok()) return status;
  if (absl::Status status = AddTokens(fields, out); !status.ok()) return status;
  return AddMerges(fields, out);
}

absl::Status ImportLlama(const GgufTokenizerFields& fields, pb::Tokenizer* out) {
  if (fields.scores.empty()) return absl::InvalidArgumentError("tokenizer.ggml.scores: absent");
  out->set_model(pb::Tokenizer::BPE_BY_SCORE);
  out->mutable_piece_score()->Add(fields.scores.begin(), fields.scores.end());
  out->set_add_bos(fields.add_bos.value_or(true));
  const bool prefix = fields.add_space_prefix.value_or(true);
  out->mutable_sentencepiece()->set_add_dummy_prefix(prefix);
  out->mutable_sentencepiece()->set_escape_whitespaces(true);
  out->set_space_symbol(true);
  out->set_strip_leading_space(prefix);
  out->set_fuse_unknown(true);
  if (absl::Status status = AddTokens(fields, out); !status.ok()) return status;
  for (const char kind : out->piece_kind())
    out->set_byte_fallback(out->byte_fallback() || kind == pb::BYTE);
  return absl::OkStatus();
}

}  // namespace

const char* GgufPreTokenizer(const pb::Tokenizer& tokenizer) {
  for (const PreTokenizer& pre : kPreTokenizers) {
    pb::Tokenizer splits;
    if (tokenizer.whole_words() != pre.whole_words || !AddSplits(pre, &splits).ok()) continue;
    if (std::equal(splits.pre_tokenizer().begin(), splits.pre_tokenizer().end(),
                   tokenizer.pre_tokenizer().begin(), tokenizer.pre_tokenizer().end(),
                   [](const pb::TextStep& a, const pb::TextStep& b) {
                     return a.SerializeAsString() == b.SerializeAsString();
                   })) {
      return pre.name;
    }
  }
  return nullptr;
}

absl::StatusOr<pb::Tokenizer> ImportGgufTokenizer(const GgufTokenizerFields& fields) {
  pb::Tokenizer out;
  absl::Status status = CheckSizes(fields);
  if (!status.ok()) return status;
  if (fields.model == "gpt2") {
    status = ImportByteLevel(fields, &out);
  } else if (fields.model == "llama") {
    status = ImportLlama(fields, &out);
  } else {
    status = absl::UnimplementedError(absl::StrCat("tokenizer.ggml.model: ", Quote(fields.model),
                                                   ", supported are gpt2 and llama"));
  }
  if (!status.ok()) return status;

  const auto check = [&](const std::optional<uint32_t>& id, const char* key) {
    if (!status.ok() || !id.has_value() || *id < fields.tokens.size())
      return id.has_value() && status.ok();
    status = absl::InvalidArgumentError(
        absl::StrFormat("tokenizer.ggml.%s: id %d of %d tokens", key, *id, fields.tokens.size()));
    return false;
  };
  if (check(fields.bos_id, "bos_token_id")) out.set_bos_id(*fields.bos_id);
  if (check(fields.unknown_id, "unknown_token_id") && out.model() == pb::Tokenizer::BPE_BY_SCORE) {
    out.set_unknown_id(*fields.unknown_id);
  }
  const auto add_eos = [&](const std::optional<uint32_t>& id, const char* key) {
    if (!check(id, key)) return;
    for (const uint32_t known : out.eos_ids()) {
      if (known == *id) return;
    }
    out.add_eos_ids(*id);
  };
  add_eos(fields.eos_id, "eos_token_id");
  add_eos(fields.eot_id, "eot_token_id");
  add_eos(fields.eom_id, "eom_token_id");
  if (!status.ok()) return status;
  out.set_add_bos(out.add_bos() && out.has_bos_id());
  out.set_add_eos(fields.add_eos.value_or(false) && out.eos_ids_size() > 0);
  out.set_chat_template(fields.chat_template);
  return out;
}

}  // namespace quire
