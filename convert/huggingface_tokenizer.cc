// Hugging Face's tokenizer.json.
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "convert/json_object.h"
#include "convert/quote.h"
#include "convert/tokenizer_builder.h"
#include "convert/tokenizer_files.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using Json = nlohmann::json;

constexpr char kSpaceSymbol[] = "\xE2\x96\x81";
// Ids may leave gaps (reserved rows of the embedding), but not any.
constexpr uint64_t kMaxGap = 65536;
constexpr int kMaxSteps = 32;

absl::Status Malformed(absl::string_view where, absl::string_view want) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": want ", want));
}

// A member that is an object, array or whatever; null where it is absent or null.
const Json* Find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}
bool Bool(const Json& object, const char* key, bool fallback) {
  const Json* value = Find(object, key);
  return value != nullptr && value->is_boolean() ? value->get<bool>() : fallback;
}
std::string String(const Json& object, const char* key) {
  const Json* value = Find(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

// Reads one tokenizer.json.
class Importer {
 public:
  explicit Importer(const Json& root) : root_(root) {}

  absl::StatusOr<pb::Tokenizer> Import() {
    absl::Status status = ReadModel();
    if (status.ok() && Find(root_, "normalizer"))
      status = ReadNormalizer(*Find(root_, "normalizer"));
    if (status.ok() && Find(root_, "pre_tokenizer"))
      status = ReadPreTokenizer(*Find(root_, "pre_tokenizer"));
    if (status.ok()) status = ReadDecoder();
    if (status.ok()) status = ReadAddedTokens();
    if (status.ok()) status = AddPieces();
    if (status.ok()) status = ReadMerges();
    if (status.ok() && Find(root_, "post_processor"))
      status = ReadPostProcessor(*Find(root_, "post_processor"));
    if (!status.ok()) return status;
    return std::move(out_);
  }

 private:
  struct Token {
    std::string text;
    bool in_vocabulary = false;
    bool added = false, special = false;
    bool reachable = true;  // its text can come out of merging
  };

  absl::Status ReadModel();
  absl::Status ReadNormalizer(const Json& spec);
  absl::Status ReadPreTokenizer(const Json& spec);
  absl::Status ReadDecoder();
  absl::Status ReadDecoderStep(const Json& spec);
  absl::Status ReadAddedTokens();
  absl::Status AddPieces();
  absl::Status ReadMerges();
  absl::Status ReadPostProcessor(const Json& spec);
  // The value of a "pattern" member, {"String": x} or {"Regex": x}, in PCRE2's syntax.
  absl::StatusOr<std::string> Pattern(const Json& spec, absl::string_view where);
  absl::Status EachOf(const Json& spec, const char* member,
                      absl::Status (Importer::*read)(const Json&));
  absl::Status Reserve(uint64_t id, absl::string_view where);

  const Json& root_;
  const Json* model_ = nullptr;
  pb::Tokenizer out_;
  std::vector<Token> tokens_;  // by id
  absl::flat_hash_map<std::string, uint32_t> ids_;
  int steps_ = 0;
};

absl::Status Importer::Reserve(uint64_t id, absl::string_view where) {
  if (id < tokens_.size()) return absl::OkStatus();
  const uint64_t count = ids_.size() + 1;
  if (id > count + kMaxGap) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: id %d, but there are only %d tokens", where, id, count));
  }
  tokens_.resize(id + 1);
  return absl::OkStatus();
}

absl::Status Importer::ReadModel() {
  model_ = Find(root_, "model");
  if (model_ == nullptr || !model_->is_object()) return Malformed("model", "an object");
  std::string type = String(*model_, "type");
  if (type.empty() && Find(*model_, "merges") != nullptr) type = "BPE";
  if (type != "BPE") {
    return absl::UnimplementedError(
        absl::StrCat("model.type: ", Quote(type), ", supported is BPE"));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!String(*model_, key).empty())
      return absl::UnimplementedError(absl::StrCat("model.", key, " is not supported"));
  }
  out_.set_model(pb::Tokenizer::BPE_BY_MERGES);
  out_.set_byte_fallback(Bool(*model_, "byte_fallback", false));
  out_.set_fuse_unknown(Bool(*model_, "fuse_unk", false));
  out_.set_whole_words(Bool(*model_, "ignore_merges", false));

  const Json* vocabulary = Find(*model_, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_object() || vocabulary->empty()) {
    return Malformed("model.vocab", "an object of ids by token");
  }
  ids_.reserve(vocabulary->size());
  for (const auto& [text, id] : vocabulary->items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > vocabulary->size() + kMaxGap) {
      return absl::InvalidArgumentError(
          absl::StrFormat("model.vocab: %s has id %s, but there are %d tokens", Quote(text),
                          id.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 40),
                          vocabulary->size()));
    }
    const uint64_t index = id.get<uint64_t>();
    if (index >= tokens_.size()) tokens_.resize(index + 1);
    if (tokens_[index].in_vocabulary) {
      return absl::InvalidArgumentError(absl::StrFormat("model.vocab: %s and %s both have id %d",
                                                        Quote(tokens_[index].text), Quote(text),
                                                        index));
    }
    tokens_[index].text = text;
    tokens_[index].in_vocabulary = true;
    ids_[text] = static_cast<uint32_t>(index);
  }
  if (const std::string unknown = String(*model_, "unk_token"); !unknown.empty()) {
    const auto it = ids_.find(unknown);
    if (it == ids_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.unk_token: ", Quote(unknown), " is not in model.vocab"));
    }
    out_.set_unknown_id(it->second);
  }
  return absl::OkStatus();
}

absl::Status Importer::EachOf(const Json& spec, const char* member,
                              absl::Status (Importer::*read)(const Json&)) {
  const Json* list = Find(spec, member);
  if (list == nullptr || !list->is_array()) return Malformed(member, "a list");
  for (const Json& item : *list) {
    // Bounds nesting as well: each level is a step.
    if (++steps_ > kMaxSteps)
      return absl::ResourceExhaustedError(absl::StrCat(member, ": more than ", kMaxSteps));
    if (absl::Status status = (this->*read)(item); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Importer::Pattern(const Json& spec, absl::string_view where) {
  const Json* pattern = Find(spec, "pattern");
  if (pattern != nullptr) {
    if (const Json* text = Find(*pattern, "String"); text != nullptr && text->is_string()) {
      return PatternOfText(text->get<std::string>());
    }
    if (const Json* regex = Find(*pattern, "Regex"); regex != nullptr && regex->is_string()) {
      return PatternToPcre2(regex->get<std::string>());
    }
  }
  return Malformed(absl::StrCat(where, ".pattern"), "{\"String\": ...} or {\"Regex\": ...}");
}

absl::Status Importer::ReadNormalizer(const Json& spec) {
  const std::string type = String(spec, "type");
  if (type == "Sequence") return EachOf(spec, "normalizers", &Importer::ReadNormalizer);
  static constexpr std::pair<const char*, pb::TextStep::Kind> kForms[] = {
      {"NFC", pb::TextStep::NFC},
      {"NFD", pb::TextStep::NFD},
      {"NFKC", pb::TextStep::NFKC},
      {"NFKD", pb::TextStep::NFKD}};
  for (const auto& [name, kind] : kForms) {
    if (type != name) continue;
    out_.add_normalizer()->set_kind(kind);
    return absl::OkStatus();
  }
  if (type == "Prepend") {
    pb::TextStep* step = out_.add_normalizer();
    step->set_kind(pb::TextStep::PREPEND);
    step->set_text(String(spec, "prepend"));
    return absl::OkStatus();
  }
  if (type == "Replace") {
    absl::StatusOr<std::string> pattern = Pattern(spec, "normalizer Replace");
    if (!pattern.ok()) return pattern.status();
    pb::TextStep* step = out_.add_normalizer();
    step->set_kind(pb::TextStep::REPLACE);
    step->set_pattern(*pattern);
    step->set_text(String(spec, "content"));
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      absl::StrCat("normalizer of type ", Quote(type),
                   ", supported are Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace"));
}

absl::Status Importer::ReadPreTokenizer(const Json& spec) {
  const std::string type = String(spec, "type");
  if (type == "Sequence") return EachOf(spec, "pretokenizers", &Importer::ReadPreTokenizer);
  if (type == "ByteLevel") {
    out_.set_byte_level(true);
    if (Bool(spec, "add_prefix_space", true)) {
      pb::TextStep* step = out_.add_pre_tokenizer();
      step->set_kind(pb::TextStep::PREPEND);
      step->set_text(" ");
      step->set_unless_present(true);
    }
    if (!Bool(spec, "use_regex", true)) return absl::OkStatus();
    absl::StatusOr<std::string> pattern = PatternToPcre2(kGpt2Pattern);
    if (!pattern.ok()) return pattern.status();
    AddSplit(*pattern, pb::TextStep::ISOLATED, &out_);
    return absl::OkStatus();
  }
  if (type == "Digits") {
    const bool individual = Bool(spec, "individual_digits", false);
    AddSplit(individual ? "\\p{N}" : "\\p{N}+", pb::TextStep::ISOLATED, &out_);
    return absl::OkStatus();
  }
  if (type == "Split") {
    static constexpr std::pair<const char*, pb::TextStep::Behavior> kBehaviors[] = {
        {"Isolated", pb::TextStep::ISOLATED},
        {"Removed", pb::TextStep::REMOVED},
        {"MergedWithPrevious", pb::TextStep::MERGED_WITH_PREVIOUS},
        {"MergedWithNext", pb::TextStep::MERGED_WITH_NEXT},
        {"Contiguous", pb::TextStep::CONTIGUOUS}};
    absl::StatusOr<std::string> pattern = Pattern(spec, "pre_tokenizer Split");
    if (!pattern.ok()) return pattern.status();
    const std::string behavior = String(spec, "behavior");
    for (const auto& [name, value] : kBehaviors) {
      if (behavior != name) continue;
      AddSplit(*pattern, value, &out_)->set_invert(Bool(spec, "invert", false));
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        absl::StrCat("pre_tokenizer Split.behavior: ", Quote(behavior)));
  }
  if (type == "Metaspace") {
    const std::string symbol = String(spec, "replacement");
    if (symbol.empty()) return Malformed("pre_tokenizer Metaspace.replacement", "a character");
    std::string scheme = String(spec, "prepend_scheme");
    if (scheme.empty()) scheme = Bool(spec, "add_prefix_space", true) ? "always" : "never";
    pb::TextStep* replace = out_.add_pre_tokenizer();
    replace->set_kind(pb::TextStep::REPLACE);
    replace->set_pattern(PatternOfText(" "));
    replace->set_text(symbol);
    if (scheme != "never") {
      if (scheme != "always" && scheme != "first") {
        return absl::UnimplementedError(
            absl::StrCat("pre_tokenizer Metaspace.prepend_scheme: ", Quote(scheme)));
      }
      pb::TextStep* prepend = out_.add_pre_tokenizer();
      prepend->set_kind(pb::TextStep::PREPEND);
      prepend->set_text(symbol);
      prepend->set_unless_present(true);
      prepend->set_first_only(scheme == "first");
    }
    if (Bool(spec, "split", true))
      AddSplit(PatternOfText(symbol), pb::TextStep::MERGED_WITH_NEXT, &out_);
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      absl::StrCat("pre_tokenizer of type ", Quote(type),
                   ", supported are Sequence, ByteLevel, Digits, Split, Metaspace"));
}

absl::Status Importer::ReadDecoder() {
  const bool byte_level = out_.byte_level();
  out_.set_byte_level(false);
  const Json* spec = Find(root_, "decoder");
  if (spec == nullptr)
    return absl::UnimplementedError("a tokenizer.json without a decoder is not supported");
  if (absl::Status status = ReadDecoderStep(*spec); !status.ok()) return status;
  if (byte_level != out_.byte_level()) {
    return absl::UnimplementedError(
        "one of pre_tokenizer and decoder is ByteLevel, the other is not");
  }
  return absl::OkStatus();
}

absl::Status Importer::ReadDecoderStep(const Json& spec) {
  const std::string type = String(spec, "type");
  if (type == "Sequence") return EachOf(spec, "decoders", &Importer::ReadDecoderStep);
  if (type == "ByteLevel") {
    out_.set_byte_level(true);
    return absl::OkStatus();
  }
  if (type == "ByteFallback" || type == "Fuse") return absl::OkStatus();
  if (type == "Metaspace") {
    std::string scheme = String(spec, "prepend_scheme");
    if (scheme.empty()) scheme = Bool(spec, "add_prefix_space", true) ? "always" : "never";
    if (String(spec, "replacement") != kSpaceSymbol) {
      return absl::UnimplementedError("decoder Metaspace with a replacement other than U+2581");
    }
    out_.set_space_symbol(true);
    out_.set_strip_leading_space(scheme != "never");
    return absl::OkStatus();
  }
  if (type == "Replace") {
    const Json* pattern = Find(spec, "pattern");
    if (pattern != nullptr && String(*pattern, "String") == kSpaceSymbol &&
        String(spec, "content") == " ") {
      out_.set_space_symbol(true);
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        "decoder Replace of anything but U+2581 by a space is not supported");
  }
  if (type == "Strip") {
    const Json* start = Find(spec, "start");
    const Json* stop = Find(spec, "stop");
    if (String(spec, "content") == " " && start != nullptr && *start == 1 && stop != nullptr &&
        *stop == 0) {
      out_.set_strip_leading_space(true);
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        "decoder Strip of anything but one leading space is not supported");
  }
  return absl::UnimplementedError(absl::StrCat(
      "decoder of type ", Quote(type),
      ", supported are Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip"));
}

absl::Status Importer::ReadAddedTokens() {
  const Json* list = Find(root_, "added_tokens");
  if (list == nullptr) return absl::OkStatus();
  if (!list->is_array()) return Malformed("added_tokens", "a list");
  for (const Json& item : *list) {
    const Json* id = Find(item, "id");
    const Json* content = Find(item, "content");
    if (id == nullptr || !id->is_number_unsigned() || content == nullptr || !content->is_string()) {
      return Malformed("added_tokens", "objects with id and content");
    }
    const std::string text = content->get<std::string>();
    if (text.empty()) continue;
    const uint64_t index = id->get<uint64_t>();
    if (absl::Status status = Reserve(index, absl::StrCat("added_tokens: ", Quote(text)));
        !status.ok())
      return status;
    Token& token = tokens_[index];
    const auto known = ids_.find(text);
    if (token.added || (token.in_vocabulary && token.text != text) ||
        (known != ids_.end() && known->second != index)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "added_tokens: %s has id %d, but %s", Quote(text), index,
          known != ids_.end() ? absl::StrCat("it also has id ", known->second)
                              : absl::StrCat("that is the id of ", Quote(token.text))));
    }
    token.text = text;
    token.added = true;
    token.special = Bool(item, "special", false);
    ids_[text] = static_cast<uint32_t>(index);
    pb::AddedToken* added = out_.add_added_tokens();
    added->set_id(static_cast<uint32_t>(index));
    added->set_special(token.special);
    added->set_normalized(Bool(item, "normalized", !token.special));
    added->set_lstrip(Bool(item, "lstrip", false));
    added->set_rstrip(Bool(item, "rstrip", false));
    added->set_single_word(Bool(item, "single_word", false));
  }
  return absl::OkStatus();
}

absl::Status Importer::AddPieces() {
  const int64_t unknown = out_.has_unknown_id() ? int64_t{out_.unknown_id()} : -1;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    Token& token = tokens_[id];
    pb::PieceKind kind = pb::NORMAL;
    std::string text = token.text;
    if (static_cast<int64_t>(id) == unknown) {
      kind = pb::UNKNOWN;
      if (!token.special) out_.set_unknown_text(text);
    } else if (token.added) {
      kind = token.special ? pb::CONTROL : pb::USER_DEFINED;
    } else if (!token.in_vocabulary || text.empty()) {
      kind = pb::UNUSED;
    } else if (out_.byte_fallback() && text.size() == 6 && text.compare(0, 3, "<0x") == 0 &&
               text[5] == '>') {
      kind = pb::BYTE;
    }
    if (out_.byte_level()) {
      std::optional<std::string> bytes = BytesOfByteLevel(text);
      token.reachable = bytes.has_value();
      if (kind == pb::NORMAL && bytes.has_value()) text = *std::move(bytes);
      // No text gives this token, but the model may; it prints as it is spelled.
      if (kind == pb::NORMAL && !token.reachable) kind = pb::USER_DEFINED;
    }
    AddPiece(text, kind, &out_);
  }
  return absl::OkStatus();
}

absl::Status Importer::ReadMerges() {
  const Json* list = Find(*model_, "merges");
  if (list == nullptr || !list->is_array()) return Malformed("model.merges", "a list");
  std::vector<Merge> merges;
  merges.reserve(list->size());
  uint32_t rank = 0;
  for (const Json& item : *list) {
    std::string left, right;
    if (item.is_string()) {
      const std::string& both = item.get_ref<const std::string&>();
      const size_t space = both.find(' ');
      if (space != std::string::npos) {
        left = both.substr(0, space);
        right = both.substr(space + 1);
      }
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      left = item[0].get<std::string>();
      right = item[1].get<std::string>();
    }
    const auto where = [&] {
      return absl::StrCat("model.merges: merge ", rank, " of ", Quote(left), " and ", Quote(right));
    };
    if (left.empty() || right.empty()) return Malformed(where(), "two tokens");
    const auto l = ids_.find(left), r = ids_.find(right), joined = ids_.find(left + right);
    if (l == ids_.end() || r == ids_.end() || joined == ids_.end()) {
      return absl::InvalidArgumentError(absl::StrCat(where(), ": ",
                                                     Quote(l == ids_.end()   ? left
                                                           : r == ids_.end() ? right
                                                                             : left + right),
                                                     " is not in model.vocab"));
    }
    if (tokens_[l->second].reachable && tokens_[r->second].reachable) {
      merges.push_back({l->second, r->second, rank, joined->second});
    }
    ++rank;
  }
  SetMerges(std::move(merges), &out_);
  return absl::OkStatus();
}

absl::Status Importer::ReadPostProcessor(const Json& spec) {
  const std::string type = String(spec, "type");
  if (type == "Sequence") return EachOf(spec, "processors", &Importer::ReadPostProcessor);
  if (type == "ByteLevel") return absl::OkStatus();  // changes offsets alone
  if (type != "TemplateProcessing") {
    return absl::UnimplementedError(
        absl::StrCat("post_processor of type ", Quote(type),
                     ", supported are Sequence, ByteLevel, TemplateProcessing"));
  }
  const Json* single = Find(spec, "single");
  const Json* special_tokens = Find(spec, "special_tokens");
  if (single == nullptr || !single->is_array()) return Malformed("post_processor.single", "a list");
  bool after_text = false;
  for (const Json& item : *single) {
    if (Find(item, "Sequence") != nullptr) {
      after_text = true;
      continue;
    }
    const Json* token = Find(item, "SpecialToken");
    const std::string name = token == nullptr ? "" : String(*token, "id");
    const Json* entry = special_tokens == nullptr ? nullptr : Find(*special_tokens, name.c_str());
    const Json* ids = entry == nullptr ? nullptr : Find(*entry, "ids");
    if (ids == nullptr || !ids->is_array() || ids->size() != 1 || !(*ids)[0].is_number_unsigned() ||
        (*ids)[0].get<uint64_t>() >= tokens_.size()) {
      return Malformed("post_processor.special_tokens",
                       absl::StrCat("one known id for ", Quote(name)));
    }
    const uint32_t id = (*ids)[0].get<uint32_t>();
    if ((after_text ? out_.add_eos() : out_.add_bos())) {
      return absl::UnimplementedError(
          "post_processor adds more than one token to an end of the text");
    }
    if (after_text) {
      out_.set_add_eos(true);
      out_.add_eos_ids(id);
    } else {
      out_.set_add_bos(true);
      out_.set_bos_id(id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<pb::Tokenizer> ImportHuggingFaceJson(absl::string_view content) {
  const absl::StatusOr<Json> root = ParseJsonObject(content);
  if (!root.ok()) return root.status();
  return Importer(*root).Import();
}

}  // namespace quire
