// Normalizing and cutting of texts before the model sees them (TextStep in tokenizer.proto).
#ifndef QUIRE_RUNTIME_TEXT_TEXT_STEPS_H_
#define QUIRE_RUNTIME_TEXT_TEXT_STEPS_H_

#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "format/tokenizer.pb.h"
#include "google/protobuf/repeated_field.h"
#include "runtime/text/regex.h"

namespace quire {

// A part of a text, valid UTF-8.
struct TextPart {
  absl::string_view text;
  bool begins_text;  // nothing of the whole text lies before it
};

// Steps that apply one after another. Borrows the messages, which must outlive it unmoved.
// Immutable after Init.
class TextSteps {
 public:
  // InvalidArgument: a pattern that does not compile. Unimplemented: a kind of step that is not
  // known.
  absl::Status Init(const google::protobuf::RepeatedPtrField<pb::TextStep>& steps,
                    const char* what);

  // Replaces *parts by what the steps make of them; empty parts vanish. Changed texts are kept in
  // *storage, on which the parts then depend. Patterns spend from *budget. ResourceExhausted: as
  // Regex::ForEachMatch, or the text grows beyond 16 times its length + 1 MiB.
  absl::Status Apply(std::vector<TextPart>* parts, std::deque<std::string>* storage,
                     MatchBudget* budget) const;

 private:
  struct Step {
    const pb::TextStep* spec;
    std::vector<Regex> pattern;  // one, or none
  };
  std::vector<Step> steps_;
};

// The Unicode normalization form of valid UTF-8. O(n log n).
std::string NormalizeUnicode(absl::string_view text, pb::TextStep::Kind form);

}  // namespace quire

#endif  // QUIRE_RUNTIME_TEXT_TEXT_STEPS_H_
