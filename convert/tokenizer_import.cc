#include "convert/tokenizer_import.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "convert/json_object.h"
#include "convert/quote.h"
#include "convert/tokenizer_builder.h"
#include "convert/tokenizer_files.h"
#include "format/file.h"
#include "nlohmann/json.hpp"
#include "runtime/text/utf8.h"

namespace quire {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

// An object, or null where the file is absent.
absl::StatusOr<Json> ReadJson(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return Json();
  if (!text.ok()) return text.status();
  return ParseJsonObject(*text, path);
}

const Json* Find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

// "</s>" or {"content": "</s>", ...}; empty where absent.
std::string TokenText(const Json& object, const char* key) {
  const Json* value = Find(object, key);
  if (value != nullptr && value->is_object()) value = Find(*value, "content");
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

// The files that stand beside a tokenizer: what they say of its special tokens, and the chat
// template.
class Surroundings {
 public:
  Surroundings(std::string folder, pb::Tokenizer* out) : folder_(std::move(folder)), out_(out) {}

  absl::Status Apply() {
    for (const auto& [name, target] :
         {std::make_pair("tokenizer_config.json", &tokenizer_config_),
          std::make_pair("special_tokens_map.json", &map_),
          std::make_pair("generation_config.json", &generation_config_),
          std::make_pair("config.json", &config_)}) {
      absl::StatusOr<Json> json = ReadJson(absl::StrCat(folder_, name));
      if (!json.ok()) return json.status();
      *target = *std::move(json);
    }
    if (absl::Status status = AddMoreTokens(); !status.ok()) return status;
    IndexAddedTokens();
    SetBos();
    SetEos();
    return SetChatTemplate();
  }

 private:
  // Tokens that a tokenizer.model does not have: those of added_tokens_decoder, which continue its
  // ids.
  absl::Status AddMoreTokens() {
    const Json* decoder = Find(tokenizer_config_, "added_tokens_decoder");
    if (!out_->has_sentencepiece() || decoder == nullptr || !decoder->is_object())
      return absl::OkStatus();
    for (bool found = true; found;) {
      const int id = out_->piece_length_size();
      const Json* token = Find(*decoder, absl::StrCat(id).c_str());
      const std::string text =
          token == nullptr ? "" : TokenText(*decoder, absl::StrCat(id).c_str());
      found = !text.empty();
      if (!found) break;
      const auto flag = [&](const char* key) {
        const Json* value = Find(*token, key);
        return value != nullptr && value->is_boolean() && value->get<bool>();
      };
      AddPiece(text, flag("special") ? pb::CONTROL : pb::USER_DEFINED, out_);
      out_->add_piece_score(0);
      pb::AddedToken* added = out_->add_added_tokens();
      added->set_id(id);
      added->set_special(flag("special"));
      added->set_lstrip(flag("lstrip"));
      added->set_rstrip(flag("rstrip"));
      added->set_single_word(flag("single_word"));
    }
    return absl::OkStatus();
  }

  void IndexAddedTokens() {
    std::vector<size_t> offsets = {0};
    for (const uint32_t length : out_->piece_length()) offsets.push_back(offsets.back() + length);
    for (const pb::AddedToken& token : out_->added_tokens()) {
      ids_[out_->piece_text().substr(offsets[token.id()], out_->piece_length(token.id()))] =
          token.id();
    }
  }

  // The id that a text names in the configs, in order.
  std::optional<uint32_t> NamedToken(const char* key) const {
    for (const Json* config : {&tokenizer_config_, &map_}) {
      const auto it = ids_.find(TokenText(*config, key));
      if (it != ids_.end()) return it->second;
    }
    return std::nullopt;
  }

  std::vector<uint32_t> ConfiguredIds(const Json& config, const char* key) const {
    std::vector<uint32_t> ids;
    const Json* value = Find(config, key);
    if (value == nullptr) return ids;
    const Json list = value->is_array() ? *value : Json::array({*value});
    for (const Json& id : list) {
      // Ids beyond the vocabulary are of no use here; some configs have them.
      if (id.is_number_unsigned() &&
          id.get<uint64_t>() < static_cast<uint64_t>(out_->piece_length_size())) {
        ids.push_back(id.get<uint32_t>());
      }
    }
    return ids;
  }

  void SetBos() {
    std::optional<uint32_t> bos = NamedToken("bos_token");
    if (tokenizer_config_.is_null() && map_.is_null()) {
      for (const Json* config : {&generation_config_, &config_}) {
        const std::vector<uint32_t> ids = ConfiguredIds(*config, "bos_token_id");
        if (!bos.has_value() && !ids.empty()) bos = ids[0];
      }
    }
    if (bos.has_value() && !out_->add_bos()) out_->set_bos_id(*bos);
    // LlamaTokenizer builds its post-processor anew from these flags; other classes leave
    // tokenizer.json's.
    const std::string tokenizer_class = TokenText(tokenizer_config_, "tokenizer_class");
    if (absl::StartsWith(tokenizer_class, "Llama") || out_->has_sentencepiece()) {
      const Json* add_bos = Find(tokenizer_config_, "add_bos_token");
      const Json* add_eos = Find(tokenizer_config_, "add_eos_token");
      const bool default_bos = !tokenizer_class.empty() || out_->add_bos();
      out_->set_add_bos(add_bos != nullptr && add_bos->is_boolean() ? add_bos->get<bool>()
                                                                    : default_bos);
      if (add_eos != nullptr && add_eos->is_boolean()) out_->set_add_eos(add_eos->get<bool>());
    }
    out_->set_add_bos(out_->add_bos() && out_->has_bos_id());
  }

  void SetEos() {
    // What the tokenizer itself appends or names comes first, then whatever ends a generation.
    std::vector<uint32_t> eos;
    absl::flat_hash_set<uint32_t> seen;
    const auto add = [&](uint32_t id) {
      if (seen.insert(id).second) eos.push_back(id);
    };
    const std::optional<uint32_t> named = NamedToken("eos_token");
    if (named.has_value()) add(*named);
    for (const Json* config : {&generation_config_, &config_}) {
      for (const uint32_t id : ConfiguredIds(*config, "eos_token_id")) add(id);
    }
    // A file's own idea counts where nothing says otherwise, or where it appends the token.
    if (eos.empty() || out_->add_eos()) {
      const std::vector<uint32_t> own(out_->eos_ids().begin(), out_->eos_ids().end());
      const std::vector<uint32_t> configured = std::exchange(eos, {});
      seen.clear();
      for (const std::vector<uint32_t>* ids : {&own, &configured}) {
        for (const uint32_t id : *ids) add(id);
      }
    }
    if (eos.empty()) {
      for (const char* text :
           {"</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>"}) {
        const auto it = ids_.find(text);
        if (it != ids_.end()) add(it->second);
      }
    }
    out_->clear_eos_ids();
    for (const uint32_t id : eos) out_->add_eos_ids(id);
    out_->set_add_eos(out_->add_eos() && !eos.empty());
  }

  absl::Status SetChatTemplate() {
    absl::StatusOr<std::string> jinja =
        ReadWholeFile(folder_ + "chat_template.jinja", kMaxConfigBytes);
    if (jinja.ok()) {
      const size_t valid = ValidUtf8Prefix(*jinja);
      if (valid != jinja->size()) {
        return absl::InvalidArgumentError(
            absl::StrCat(folder_, "chat_template.jinja: byte ", valid, " is not UTF-8"));
      }
      out_->set_chat_template(*jinja);
      return absl::OkStatus();
    }
    if (!absl::IsNotFound(jinja.status())) return jinja.status();
    const Json* value = Find(tokenizer_config_, "chat_template");
    if (value == nullptr) return absl::OkStatus();
    if (value->is_array()) {  // several, by name
      for (const Json& entry : *value) {
        if (TokenText(entry, "name") == "default")
          out_->set_chat_template(TokenText(entry, "template"));
      }
    } else if (value->is_string()) {
      out_->set_chat_template(value->get<std::string>());
    }
    return absl::OkStatus();
  }

  const std::string folder_;
  pb::Tokenizer* out_;
  Json tokenizer_config_, map_, generation_config_, config_;
  absl::flat_hash_map<std::string, uint32_t> ids_;  // of added tokens
};

}  // namespace

absl::StatusOr<pb::Tokenizer> ImportTokenizerFile(const std::string& path) {
  const absl::StatusOr<std::string> content = ReadWholeFile(path, kMaxTokenizerFileBytes);
  if (!content.ok()) return content.status();
  absl::StatusOr<pb::Tokenizer> out;
  const size_t first = content->find_first_not_of(" \t\r\n");
  if (first == std::string::npos) {
    out = absl::InvalidArgumentError("an empty file");
  } else if ((*content)[first] == '{') {
    out = ImportHuggingFaceJson(*content);
  } else if (absl::StartsWith(*content, "version https://git-lfs")) {
    out = absl::InvalidArgumentError("a Git LFS pointer, not the file itself");
  } else if (LooksLikeTiktoken(*content)) {
    out = ImportTiktoken(*content);
  } else {
    out = ImportSentencepieceModel(*content);
    if (absl::IsInvalidArgument(out.status())) {
      out = absl::InvalidArgumentError(
          absl::StrCat("none of the known tokenizer files (tokenizer.json, a sentencepiece model, "
                       "a tiktoken rank file); it begins with ",
                       Quote(absl::string_view(*content).substr(0, 16))));
    }
  }
  if (!out.ok()) return InFile(path, out.status());
  if (absl::Status status = Surroundings(FolderOf(path), &*out).Apply(); !status.ok())
    return status;
  return out;
}

absl::StatusOr<std::vector<std::string>> LeaveOutTokensFrom(int64_t rows,
                                                            pb::Tokenizer* tokenizer) {
  std::vector<std::string> left_out;
  const int n = tokenizer->piece_length_size();
  if (n <= rows) return left_out;
  const auto beyond = [&](uint32_t id) { return static_cast<int64_t>(id) >= rows; };
  const auto is_beyond = [&](const pb::AddedToken& token) { return beyond(token.id()); };
  auto& added = *tokenizer->mutable_added_tokens();
  if (std::count_if(added.begin(), added.end(), is_beyond) != n - rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tokenizer has ", n, " pieces, the embedding ", rows, " rows"));
  }
  added.erase(std::remove_if(added.begin(), added.end(), is_beyond), added.end());
  std::string& text = *tokenizer->mutable_piece_text();
  for (int id = n - 1; id >= rows; --id) {
    const size_t begin = text.size() - tokenizer->piece_length(id);
    left_out.push_back(text.substr(begin));
    text.resize(begin);
  }
  std::reverse(left_out.begin(), left_out.end());
  tokenizer->mutable_piece_length()->Truncate(static_cast<int>(rows));
  tokenizer->mutable_piece_kind()->resize(rows);
  if (tokenizer->piece_score_size() > rows)
    tokenizer->mutable_piece_score()->Truncate(static_cast<int>(rows));
  auto& eos = *tokenizer->mutable_eos_ids();
  eos.erase(std::remove_if(eos.begin(), eos.end(), beyond), eos.end());
  if (beyond(tokenizer->bos_id())) {
    tokenizer->clear_bos_id();
    tokenizer->set_add_bos(false);
  }
  if (beyond(tokenizer->unknown_id())) tokenizer->clear_unknown_id();
  tokenizer->set_add_eos(tokenizer->add_eos() && !eos.empty());
  return left_out;
}

absl::StatusOr<pb::Tokenizer> ImportTokenizerFolder(const std::string& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    absl::StatusOr<pb::Tokenizer> out = ImportTokenizerFile(FolderOf(folder) + name);
    if (!absl::IsNotFound(out.status())) return out;
  }
  return absl::NotFoundError(absl::StrCat(folder, ": no tokenizer.json and no tokenizer.model"));
}

}  // namespace quire
