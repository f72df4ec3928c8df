// Text to token ids and back, exactly as the model's own library does it.
#ifndef QUIRE_RUNTIME_TOKENIZER_H_
#define QUIRE_RUNTIME_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "format/tokenizer.pb.h"

namespace quire {

// Immutable after Create; safe to use from many threads. Move-only.
class Tokenizer {
 public:
  // Checks everything that later calls rely on. InvalidArgument: a malformed section (an id out of
  // range, two pieces alike, a merge of unknown pieces, a pattern that does not compile, a damaged
  // character map). ResourceExhausted: over a limit (tokenizer.cc). Unimplemented: a newer kind of
  // model, piece or step.
  static absl::StatusOr<Tokenizer> Create(pb::Tokenizer proto);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  struct EncodeOptions {
    // The beginning- and end-of-text tokens that the model expects around a text.
    bool add_special = true;
    // Special tokens written out in the text ("<|im_end|>") become their ids; otherwise they are
    // plain text. Set it for rendered chat templates, not for a user's prompt.
    bool parse_special = false;
    // False: no end-of-text token even where the model expects one, for a text that is to go on.
    bool add_eos = true;
  };
  // Takes any bytes: each maximal invalid part of a UTF-8 sequence counts as U+FFFD, NUL is a
  // character like others, an empty text gives only what add_special adds. Takes time and memory in
  // proportion to the text's length (times the logarithm of its longest pre-token);
  // ResourceExhausted where a pattern of the file would take more, or beyond 1 GiB.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const;
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const {
    return Encode(text, EncodeOptions());
  }

  struct DecodeOptions {
    // Control tokens print as their text; otherwise as nothing.
    bool print_special = false;
    // The ids continue a text: a leading space is kept even where the model's library strips it
    // from whole texts.
    bool continues = false;
  };
  // Valid UTF-8, always: bytes that are none become U+FFFD. Ids without a piece print as nothing.
  std::string Decode(absl::Span<const int32_t> ids, const DecodeOptions& options) const;
  std::string Decode(absl::Span<const int32_t> ids) const { return Decode(ids, DecodeOptions()); }

  // Ids are 0 .. size()-1. The model's embedding table must have at least as many rows.
  int size() const;
  // The piece's text as stored (tokenizer.proto). Empty for an id out of range.
  absl::string_view piece(int32_t id) const;
  // The id of an added token (special or not) with exactly this text, as in "<|im_end|>".
  std::optional<int32_t> FindAddedToken(absl::string_view text) const;

  std::optional<int32_t> bos_id() const;
  absl::Span<const int32_t> eos_ids() const;
  bool is_eos(int32_t id) const;
  // The checkpoint's Jinja source; may be empty. Nothing interprets it here.
  const std::string& chat_template() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// Decodes ids one by one into text that can be shown at once: never part of a character. The texts
// of all calls together are Decode's of all ids. Not thread-safe; the Tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer* tokenizer, Tokenizer::DecodeOptions options = {});

  // What can be shown now that `id` is known; holds back up to 3 bytes of an incomplete character.
  std::string Add(int32_t id);
  // What was held back, as U+FFFD. Afterwards as new.
  std::string Finish();

 private:
  void AddBytes(absl::string_view bytes, std::string* out);
  void FlushBytes(std::string* out);
  std::string StripSpace(std::string text, bool of_symbol);

  const Tokenizer* tokenizer_;
  Tokenizer::DecodeOptions options_;
  bool strip_space_;     // the next space to print is dropped
  std::string pending_;  // an incomplete character
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_TOKENIZER_H_
