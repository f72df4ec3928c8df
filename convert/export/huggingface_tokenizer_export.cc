#include "convert/export/huggingface_tokenizer_export.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "convert/export/pieces.h"
#include "convert/sentencepiece_model.pb.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kSpaceSymbol[] = "\xE2\x96\x81";

std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
}

// {"String": x} of a pattern that is a text alone (PatternOfText), else {"Regex": x}. What PCRE2
// and Oniguruma read alike is all that PatternToPcre2 lets through; but for (?m), which it adds and
// which is Oniguruma's way without asking.
Json Pattern(absl::string_view pattern) {
  const std::string space = PatternOfText(" ");
  if (pattern == space) return {{"String", " "}};
  if (pattern == kSpaceSymbol) return {{"String", kSpaceSymbol}};
  absl::ConsumePrefix(&pattern, "(?m)");
  return {{"Regex", std::string(pattern)}};
}

// Several steps as one.
Json Together(const char* member, Json steps) {
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {member, std::move(steps)}};
}

// Null where a step has no counterpart.
std::optional<Json> Normalizer(const pb::Tokenizer& tokenizer) {
  Json steps = Json::array();
  for (const pb::TextStep& step : tokenizer.normalizer()) {
    switch (step.kind()) {
      case pb::TextStep::NFC:
      case pb::TextStep::NFD:
      case pb::TextStep::NFKC:
      case pb::TextStep::NFKD:
        steps.push_back({{"type", pb::TextStep::Kind_Name(step.kind())}});
        break;
      case pb::TextStep::PREPEND:
        if (step.unless_present() || step.first_only()) return std::nullopt;
        steps.push_back({{"type", "Prepend"}, {"prepend", step.text()}});
        break;
      case pb::TextStep::REPLACE:
        steps.push_back(
            {{"type", "Replace"}, {"pattern", Pattern(step.pattern())}, {"content", step.text()}});
        break;
      default:
        return std::nullopt;
    }
  }
  return Together("normalizers", std::move(steps));
}

Json ByteLevel(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// REPLACE of spaces, and what follows it in Hugging Face's Metaspace. Advances *next.
std::optional<Json> Metaspace(const pb::Tokenizer& tokenizer, int* next) {
  const auto& steps = tokenizer.pre_tokenizer();
  const pb::TextStep& replace = steps[*next];
  if (replace.pattern() != PatternOfText(" ")) return std::nullopt;
  ++*next;
  std::string scheme = "never";
  if (*next < steps.size() && steps[*next].kind() == pb::TextStep::PREPEND &&
      steps[*next].text() == replace.text() && steps[*next].unless_present()) {
    scheme = steps[*next].first_only() ? "first" : "always";
    ++*next;
  }
  const bool split = *next < steps.size() && steps[*next].kind() == pb::TextStep::SPLIT &&
                     steps[*next].pattern() == PatternOfText(replace.text()) &&
                     steps[*next].behavior() == pb::TextStep::MERGED_WITH_NEXT &&
                     !steps[*next].invert();
  if (split) ++*next;
  return Json{{"type", "Metaspace"},
              {"replacement", replace.text()},
              {"prepend_scheme", scheme},
              {"split", split}};
}

std::optional<Json> PreTokenizer(const pb::Tokenizer& tokenizer) {
  static constexpr std::pair<pb::TextStep::Behavior, const char*> kBehaviors[] = {
      {pb::TextStep::ISOLATED, "Isolated"},
      {pb::TextStep::REMOVED, "Removed"},
      {pb::TextStep::MERGED_WITH_PREVIOUS, "MergedWithPrevious"},
      {pb::TextStep::MERGED_WITH_NEXT, "MergedWithNext"},
      {pb::TextStep::CONTIGUOUS, "Contiguous"}};
  const auto& steps = tokenizer.pre_tokenizer();
  Json out = Json::array();
  bool prefix = false, gpt2 = false;  // both are members of ByteLevel there
  for (int i = 0; i < steps.size();) {
    const pb::TextStep& step = steps[i];
    if (step.kind() == pb::TextStep::PREPEND && tokenizer.byte_level() && step.text() == " " &&
        step.unless_present() && !step.first_only() && !prefix) {
      // The text must be bytes no earlier than where all is cut.
      prefix = true;
      const absl::StatusOr<std::string> pattern = PatternToPcre2(kGpt2Pattern);
      gpt2 = i + 1 < steps.size() && pattern.ok() && steps[i + 1].pattern() == *pattern;
      i += gpt2 ? 2 : 1;
      if (i != steps.size()) return std::nullopt;
    } else if (step.kind() == pb::TextStep::REPLACE) {
      std::optional<Json> metaspace = Metaspace(tokenizer, &i);
      if (!metaspace.has_value()) return std::nullopt;
      out.push_back(*std::move(metaspace));
    } else if (step.kind() == pb::TextStep::SPLIT) {
      const auto behavior =
          std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                       [&](const auto& row) { return row.first == step.behavior(); });
      if (behavior == std::end(kBehaviors)) return std::nullopt;
      out.push_back({{"type", "Split"},
                     {"pattern", Pattern(step.pattern())},
                     {"behavior", behavior->second},
                     {"invert", step.invert()}});
      ++i;
    } else {
      return std::nullopt;
    }
  }
  if (tokenizer.byte_level()) out.push_back(ByteLevel(prefix, gpt2));
  return Together("pretokenizers", std::move(out));
}

Json Decoder(const pb::Tokenizer& tokenizer) {
  if (tokenizer.byte_level()) return ByteLevel(true, true);
  Json steps = Json::array();
  if (tokenizer.space_symbol()) {
    steps.push_back(
        {{"type", "Replace"}, {"pattern", {{"String", kSpaceSymbol}}}, {"content", " "}});
  }
  if (tokenizer.byte_fallback()) steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (tokenizer.strip_leading_space())
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return Together("decoders", std::move(steps));
}

// Tokens at the ends of a text.
Json PostProcessor(const pb::Tokenizer& tokenizer, const std::vector<Piece>& pieces) {
  const bool bos = tokenizer.add_bos() && tokenizer.has_bos_id();
  const bool eos = tokenizer.add_eos() && tokenizer.eos_ids_size() > 0;
  if (!bos && !eos) return nullptr;
  Json specials = Json::object();
  const auto special = [&](uint32_t id, int type) -> Json {
    const std::string& text = pieces[id].spelling;
    specials[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    return {{"SpecialToken", {{"id", text}, {"type_id", type}}}};
  };
  const auto around = [&](const char* sequence, int type, Json* out) {
    if (bos) out->push_back(special(tokenizer.bos_id(), type));
    out->push_back({{"Sequence", {{"id", sequence}, {"type_id", type}}}});
    if (eos) out->push_back(special(tokenizer.eos_ids(0), type));
  };
  Json single = Json::array(), pair = Json::array();
  around("A", 0, &single);
  around("A", 0, &pair);
  around("B", 1, &pair);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", specials}};
}

Json AddedTokens(const pb::Tokenizer& tokenizer, const std::vector<Piece>& pieces) {
  std::vector<const pb::AddedToken*> tokens;
  for (const pb::AddedToken& token : tokenizer.added_tokens()) tokens.push_back(&token);
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const auto* a, const auto* b) { return a->id() < b->id(); });
  Json list = Json::array();
  for (const pb::AddedToken* token : tokens) {
    list.push_back({{"id", token->id()},
                    {"content", pieces[token->id()].spelling},
                    {"single_word", token->single_word()},
                    {"lstrip", token->lstrip()},
                    {"rstrip", token->rstrip()},
                    {"normalized", token->normalized()},
                    {"special", token->special()}});
  }
  return list;
}

Json Model(const pb::Tokenizer& tokenizer, const std::vector<Piece>& pieces) {
  // Added tokens at the end get the ids that follow the vocabulary, and stay out of it: a word that
  // is taken whole must not be one of them.
  size_t end = pieces.size();
  const bool gaps = std::any_of(pieces.begin(), pieces.end(),
                                [](const Piece& piece) { return piece.text.empty(); });
  while (!gaps && end > 0 && pieces[end - 1].added) --end;
  Json vocabulary = Json::object();
  for (size_t id = 0; id < end; ++id) {
    if (!pieces[id].text.empty()) vocabulary[pieces[id].spelling] = id;
  }
  Json merges = Json::array();
  for (const Merge& merge : MergesByRank(tokenizer, pieces))
    merges.push_back({pieces[merge.left].spelling, pieces[merge.right].spelling});
  Json unknown = nullptr;
  if (tokenizer.has_unknown_id()) unknown = pieces[tokenizer.unknown_id()].spelling;
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", unknown},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", tokenizer.fuse_unknown()},
          {"byte_fallback", tokenizer.byte_fallback()},
          {"ignore_merges", tokenizer.whole_words()},
          {"vocab", std::move(vocabulary)},
          {"merges", std::move(merges)}};
}

std::string SentencepieceModel(const pb::Tokenizer& tokenizer, const std::vector<Piece>& pieces) {
  sentencepiece::ModelProto model;
  int bos = -1, eos = -1;
  for (size_t id = 0; id < pieces.size(); ++id) {
    sentencepiece::ModelProto::Piece* piece = model.add_pieces();
    piece->set_piece(pieces[id].spelling);
    piece->set_score(tokenizer.piece_score(static_cast<int>(id)));
    piece->set_type(static_cast<sentencepiece::ModelProto::Piece::Type>(pieces[id].kind));
  }
  if (tokenizer.has_bos_id()) bos = static_cast<int>(tokenizer.bos_id());
  if (tokenizer.eos_ids_size() > 0) eos = static_cast<int>(tokenizer.eos_ids(0));
  sentencepiece::TrainerSpec* trainer = model.mutable_trainer_spec();
  trainer->set_model_type(tokenizer.model() == pb::Tokenizer::UNIGRAM
                              ? sentencepiece::TrainerSpec::UNIGRAM
                              : sentencepiece::TrainerSpec::BPE);
  trainer->set_vocab_size(static_cast<int>(pieces.size()));
  trainer->set_byte_fallback(tokenizer.byte_fallback());
  trainer->set_unk_id(tokenizer.has_unknown_id() ? static_cast<int>(tokenizer.unknown_id()) : -1);
  trainer->set_bos_id(bos);
  trainer->set_eos_id(eos);
  if (tokenizer.has_unknown_id()) trainer->set_unk_piece(pieces[tokenizer.unknown_id()].spelling);
  if (bos >= 0) trainer->set_bos_piece(pieces[static_cast<size_t>(bos)].spelling);
  if (eos >= 0) trainer->set_eos_piece(pieces[static_cast<size_t>(eos)].spelling);
  trainer->set_unk_surface(tokenizer.unknown_text());
  const pb::SentencepieceNormalizer& from = tokenizer.sentencepiece();
  sentencepiece::NormalizerSpec* normalizer = model.mutable_normalizer_spec();
  normalizer->set_precompiled_charsmap(from.precompiled_charsmap());
  normalizer->set_add_dummy_prefix(from.add_dummy_prefix());
  normalizer->set_remove_extra_whitespaces(from.remove_extra_whitespaces());
  normalizer->set_escape_whitespaces(from.escape_whitespaces());
  return model.SerializeAsString();
}

std::string TokenizerConfig(const pb::Tokenizer& tokenizer, const std::vector<Piece>& pieces,
                            bool sentencepiece) {
  Json config = {{"tokenizer_class", sentencepiece ? "LlamaTokenizer" : "PreTrainedTokenizerFast"}};
  if (sentencepiece) {
    config["legacy"] = true;
    config["add_bos_token"] = tokenizer.add_bos();
    config["add_eos_token"] = tokenizer.add_eos();
    Json added = Json::object();
    for (const Json& token : AddedTokens(tokenizer, pieces)) {
      Json entry = token;
      entry.erase("id");
      added[absl::StrCat(token["id"].get<uint32_t>())] = std::move(entry);
    }
    config["added_tokens_decoder"] = std::move(added);
  }
  if (tokenizer.has_bos_id()) config["bos_token"] = pieces[tokenizer.bos_id()].spelling;
  if (tokenizer.eos_ids_size() > 0) config["eos_token"] = pieces[tokenizer.eos_ids(0)].spelling;
  if (tokenizer.has_unknown_id()) config["unk_token"] = pieces[tokenizer.unknown_id()].spelling;
  config["clean_up_tokenization_spaces"] = false;
  if (!tokenizer.chat_template().empty()) config["chat_template"] = tokenizer.chat_template();
  return Dump(config, 2);
}

}  // namespace

absl::StatusOr<NamedContents> ExportHuggingFaceTokenizer(const pb::Tokenizer& tokenizer,
                                                         std::vector<std::string>* notes) {
  absl::StatusOr<std::vector<Piece>> pieces = PiecesOf(tokenizer);
  if (!pieces.ok()) return pieces.status();
  NamedContents files;
  const bool sentencepiece =
      tokenizer.model() != pb::Tokenizer::BPE_BY_MERGES && !tokenizer.byte_level();
  if (sentencepiece) {
    files.emplace_back("tokenizer.model", SentencepieceModel(tokenizer, *pieces));
  } else {
    std::optional<Json> normalizer = Normalizer(tokenizer), pre_tokenizer = PreTokenizer(tokenizer);
    if (!normalizer.has_value() || !pre_tokenizer.has_value()) {
      notes->push_back("no tokenizer.json: it has no way to say how this tokenizer cuts texts");
      return files;
    }
    Json json = {{"version", "1.0"},
                 {"truncation", nullptr},
                 {"padding", nullptr},
                 {"added_tokens", AddedTokens(tokenizer, *pieces)},
                 {"normalizer", *std::move(normalizer)},
                 {"pre_tokenizer", *std::move(pre_tokenizer)},
                 {"post_processor", PostProcessor(tokenizer, *pieces)},
                 {"decoder", Decoder(tokenizer)},
                 {"model", Model(tokenizer, *pieces)}};
    files.emplace_back("tokenizer.json", Dump(json, 1));
  }
  files.emplace_back("tokenizer_config.json", TokenizerConfig(tokenizer, *pieces, sentencepiece));
  return files;
}

}  // namespace quire
