#include "runtime/tokenizer.h"

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/text/added_tokens.h"
#include "runtime/text/bpe.h"
#include "runtime/text/prefix_index.h"
#include "runtime/text/sentencepiece_normalizer.h"
#include "runtime/text/text_steps.h"
#include "runtime/text/unigram.h"
#include "runtime/text/utf8.h"
#include "runtime/text/vocabulary.h"

namespace quire {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr int kMaxEosIds = 1024;

absl::Status CheckId(uint32_t id, int size, const char* what) {
  if (id < static_cast<uint32_t>(size)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("tokenizer: %s id %d, but there are %d pieces", what, id, size));
}

}  // namespace

// Everything borrows from `proto`, so it stays where it is.
struct Tokenizer::Impl {
  pb::Tokenizer proto;
  Vocabulary vocabulary;
  Bpe bpe;
  Unigram unigram;
  SentencepieceNormalizer sentencepiece;
  TextSteps normalizer, pre_tokenizer;
  AddedTokens raw_tokens, normalized_tokens;
  PrefixIndex added_by_text;
  std::deque<std::string> normalized_storage;
  absl::flat_hash_map<int32_t, absl::string_view>
      normalized_texts;  // of the added tokens that have one
  std::vector<int32_t> eos_ids;

  absl::Status Init();
  absl::Status InitAddedTokens();
  absl::Status Normalize(std::vector<TextPart>* parts, std::deque<std::string>* storage,
                         MatchBudget* budget) const;
  absl::Status EncodePlain(TextPart part, bool parse_special, MatchBudget* budget,
                           std::vector<int32_t>* ids) const;
  void EncodeModel(absl::string_view text, std::vector<int32_t>* ids) const {
    proto.model() == pb::Tokenizer::UNIGRAM ? unigram.Encode(text, ids) : bpe.Encode(text, ids);
  }
};

absl::Status Tokenizer::Impl::Init() {
  if (proto.model() == pb::Tokenizer::MODEL_UNSPECIFIED ||
      !pb::Tokenizer::Model_IsValid(proto.model())) {
    return absl::UnimplementedError(
        absl::StrFormat("tokenizer: unknown kind of model %d", static_cast<int>(proto.model())));
  }
  absl::Status status = vocabulary.Init(proto);
  const int n = vocabulary.size();
  if (status.ok() && proto.has_bos_id()) status = CheckId(proto.bos_id(), n, "bos");
  if (status.ok() && proto.has_unknown_id()) status = CheckId(proto.unknown_id(), n, "unknown");
  if (status.ok() && proto.eos_ids_size() > kMaxEosIds) {
    status = absl::ResourceExhaustedError(absl::StrFormat("tokenizer: %d eos ids, the limit is %d",
                                                          proto.eos_ids_size(), kMaxEosIds));
  }
  for (int i = 0; status.ok() && i < proto.eos_ids_size(); ++i) {
    status = CheckId(proto.eos_ids(i), n, "eos");
    eos_ids.push_back(static_cast<int32_t>(proto.eos_ids(i)));
  }
  if (status.ok() &&
      ((proto.add_bos() && !proto.has_bos_id()) || (proto.add_eos() && eos_ids.empty()))) {
    status = absl::InvalidArgumentError("tokenizer: adds a bos or eos token that it does not have");
  }
  if (!status.ok()) return status;
  if (proto.model() == pb::Tokenizer::UNIGRAM) {
    unigram.Init(proto, &vocabulary);
  } else {
    status = bpe.Init(proto, &vocabulary);
  }
  if (status.ok() && proto.has_sentencepiece())
    status = sentencepiece.Init(proto.sentencepiece(), vocabulary);
  if (status.ok()) status = normalizer.Init(proto.normalizer(), "normalizer");
  if (status.ok()) status = pre_tokenizer.Init(proto.pre_tokenizer(), "pre-tokenizer");
  if (status.ok()) status = InitAddedTokens();
  return status;
}

absl::Status Tokenizer::Impl::InitAddedTokens() {
  std::vector<std::pair<absl::string_view, const pb::AddedToken*>> raw, normalized;
  std::vector<std::pair<absl::string_view, int32_t>> by_text;
  absl::flat_hash_set<absl::string_view> seen;
  MatchBudget budget(proto.piece_text().size());
  for (const pb::AddedToken& token : proto.added_tokens()) {
    if (absl::Status status = CheckId(token.id(), vocabulary.size(), "added token's"); !status.ok())
      return status;
    const absl::string_view text = vocabulary.text(token.id());
    if (text.empty()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: added token %d is empty", token.id()));
    }
    if (!seen.insert(text).second) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: two added tokens are \"%s\"", absl::CHexEscape(text)));
    }
    by_text.emplace_back(text, static_cast<int32_t>(token.id()));
    if (!token.normalized()) {
      raw.emplace_back(text, &token);
      continue;
    }
    std::vector<TextPart> parts = {{text, true}};
    std::deque<std::string> storage;
    if (ValidUtf8Prefix(text) != text.size()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer: added token %d is not UTF-8", token.id()));
    }
    if (absl::Status status = Normalize(&parts, &storage, &budget); !status.ok()) return status;
    if (parts.empty() || parts[0].text.empty()) continue;
    const absl::string_view normal = normalized_storage.emplace_back(parts[0].text);
    normalized.emplace_back(normal, &token);
    normalized_texts[token.id()] = normal;
  }
  added_by_text = PrefixIndex(std::move(by_text));
  raw_tokens = AddedTokens(std::move(raw));
  normalized_tokens = AddedTokens(std::move(normalized));
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::Normalize(std::vector<TextPart>* parts,
                                        std::deque<std::string>* storage,
                                        MatchBudget* budget) const {
  if (!proto.has_sentencepiece()) return normalizer.Apply(parts, storage, budget);
  for (TextPart& part : *parts)
    part.text = storage->emplace_back(sentencepiece.Normalize(part.text));
  return absl::OkStatus();
}

absl::Status Tokenizer::Impl::EncodePlain(TextPart part, bool parse_special, MatchBudget* budget,
                                          std::vector<int32_t>* ids) const {
  std::deque<std::string> storage;
  std::vector<TextPart> normal = {part};
  if (absl::Status status = Normalize(&normal, &storage, budget); !status.ok()) return status;
  std::vector<TextPart> parts;
  for (const TextPart& whole : normal) {
    for (const TextStretch& stretch : normalized_tokens.Cut(whole.text, parse_special)) {
      if (stretch.id >= 0) {
        ids->push_back(stretch.id);
        continue;
      }
      parts.assign(1,
                   {stretch.text, whole.begins_text && stretch.text.data() == whole.text.data()});
      if (absl::Status status = pre_tokenizer.Apply(&parts, &storage, budget); !status.ok())
        return status;
      for (const TextPart& pre_token : parts) EncodeModel(pre_token.text, ids);
    }
  }
  return absl::OkStatus();
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<Tokenizer> Tokenizer::Create(pb::Tokenizer proto) {
  auto impl = std::make_unique<Impl>();
  impl->proto = std::move(proto);
  if (absl::Status status = impl->Init(); !status.ok()) return status;
  return Tokenizer(std::move(impl));
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("text of %d bytes, the limit is %d", text.size(), kMaxTextBytes));
  }
  std::string valid;
  if (ValidUtf8Prefix(text) != text.size()) {
    valid = ReplaceInvalidUtf8(text);
    text = valid;
  }
  const pb::Tokenizer& proto = impl_->proto;
  MatchBudget budget(text.size());
  std::vector<int32_t> ids;
  if (options.add_special && proto.add_bos()) ids.push_back(static_cast<int32_t>(proto.bos_id()));
  for (const TextStretch& stretch : impl_->raw_tokens.Cut(text, options.parse_special)) {
    if (stretch.id >= 0) {
      ids.push_back(stretch.id);
      continue;
    }
    const TextPart part{stretch.text, stretch.text.data() == text.data()};
    if (absl::Status status = impl_->EncodePlain(part, options.parse_special, &budget, &ids);
        !status.ok())
      return status;
  }
  if (options.add_special && options.add_eos && proto.add_eos()) ids.push_back(impl_->eos_ids[0]);
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, const DecodeOptions& options) const {
  StreamDecoder decoder(this, options);
  std::string text;
  for (const int32_t id : ids) text += decoder.Add(id);
  return text + decoder.Finish();
}

int Tokenizer::size() const { return impl_->vocabulary.size(); }

absl::string_view Tokenizer::piece(int32_t id) const {
  return id >= 0 && id < size() ? impl_->vocabulary.text(id) : absl::string_view();
}

std::optional<int32_t> Tokenizer::FindAddedToken(absl::string_view text) const {
  const int32_t id = impl_->added_by_text.Exact(text);
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  if (!impl_->proto.has_bos_id()) return std::nullopt;
  return static_cast<int32_t>(impl_->proto.bos_id());
}

absl::Span<const int32_t> Tokenizer::eos_ids() const { return impl_->eos_ids; }

bool Tokenizer::is_eos(int32_t id) const {
  return std::find(impl_->eos_ids.begin(), impl_->eos_ids.end(), id) != impl_->eos_ids.end();
}

const std::string& Tokenizer::chat_template() const { return impl_->proto.chat_template(); }

StreamDecoder::StreamDecoder(const Tokenizer* tokenizer, Tokenizer::DecodeOptions options)
    : tokenizer_(tokenizer), options_(options) {
  const pb::Tokenizer& proto = tokenizer->impl_->proto;
  strip_space_ = proto.strip_leading_space() && !options.continues;
}

void StreamDecoder::AddBytes(absl::string_view bytes, std::string* out) {
  // Of bytes without a character, byte pieces print one U+FFFD each, byte-level pieces one for each
  // maximal part.
  const bool byte_level = tokenizer_->impl_->proto.byte_level();
  pending_.append(bytes.data(), bytes.size());
  absl::string_view rest = pending_;
  while (!rest.empty()) {
    const size_t valid = ValidUtf8Prefix(rest);
    out->append(rest.data(), valid);
    rest.remove_prefix(valid);
    if (rest.empty()) break;
    const Utf8Char c = NextChar(rest);
    if (c.incomplete) break;
    for (int i = 0; i < (byte_level ? 1 : c.length); ++i)
      absl::StrAppend(out, kReplacementCharacter);
    rest.remove_prefix(c.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
}

void StreamDecoder::FlushBytes(std::string* out) {
  const int n = static_cast<int>(pending_.size());
  const bool byte_level = tokenizer_->impl_->proto.byte_level();
  for (int i = 0; i < (byte_level ? std::min(n, 1) : n); ++i)
    absl::StrAppend(out, kReplacementCharacter);
  pending_.clear();
}

std::string StreamDecoder::StripSpace(std::string text, bool of_symbol) {
  if (!strip_space_ || text.empty()) return text;
  const bool sentencepiece = tokenizer_->impl_->proto.has_sentencepiece();
  const bool space = text[0] == ' ' && (of_symbol || !sentencepiece);
  if (space) text.erase(0, 1);
  // Sentencepiece goes on until something is visible where its normalizer would drop such spaces,
  // too.
  strip_space_ = space && text.empty() && sentencepiece &&
                 tokenizer_->impl_->proto.sentencepiece().remove_extra_whitespaces();
  return text;
}

std::string StreamDecoder::Add(int32_t id) {
  const Tokenizer::Impl& impl = *tokenizer_->impl_;
  if (id < 0 || id >= impl.vocabulary.size()) return "";
  const pb::PieceKind kind = impl.vocabulary.kind(id);
  const bool hidden =
      (kind == pb::CONTROL || (kind == pb::UNKNOWN && impl.proto.unknown_text().empty())) &&
      !options_.print_special;
  if (hidden && impl.proto.byte_level())
    return "";  // bytes of one character may lie on both sides of it
  std::string out;
  if (kind == pb::BYTE) {
    const char byte = static_cast<char>(impl.vocabulary.byte_value(id));
    AddBytes(absl::string_view(&byte, 1), &out);
    return StripSpace(std::move(out), false);
  }
  if (!impl.proto.byte_level()) FlushBytes(&out);
  if (hidden) return StripSpace(std::move(out), false);
  absl::string_view piece = impl.vocabulary.text(id);
  if (kind == pb::UNKNOWN && !impl.proto.unknown_text().empty()) piece = impl.proto.unknown_text();
  // An added token that is found in normalized text prints as it stands there: "_<x>" with a space
  // before it.
  if (const auto normal = impl.normalized_texts.find(id); normal != impl.normalized_texts.end())
    piece = normal->second;
  const bool begins_with_symbol =
      impl.proto.space_symbol() && absl::StartsWith(piece, kSpaceSymbol);
  while (impl.proto.space_symbol() && !piece.empty()) {
    const size_t symbol = piece.find(kSpaceSymbol);
    AddBytes(piece.substr(0, symbol), &out);
    if (symbol == absl::string_view::npos) return StripSpace(std::move(out), begins_with_symbol);
    AddBytes(" ", &out);
    piece.remove_prefix(symbol + kSpaceSymbol.size());
  }
  AddBytes(piece, &out);
  return StripSpace(std::move(out), begins_with_symbol);
}

std::string StreamDecoder::Finish() {
  std::string out;
  FlushBytes(&out);
  out = StripSpace(std::move(out), false);
  *this = StreamDecoder(tokenizer_, options_);
  return out;
}

}  // namespace quire
