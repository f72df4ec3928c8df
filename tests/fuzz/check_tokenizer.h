// What holds of every tokenizer and text.
#ifndef QUIRE_TESTS_FUZZ_CHECK_TOKENIZER_H_
#define QUIRE_TESTS_FUZZ_CHECK_TOKENIZER_H_

#include <string>
#include <vector>

#include "runtime/tokenizer.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {

inline void CheckRefusal(const absl::Status& status) {
  const absl::string_view message = status.message();
  FuzzCheck(!message.empty() && message.size() < 4000, "a refusal says why, in a line");
}

inline void CheckTokenizer(const Tokenizer& tokenizer, absl::string_view text) {
  for (const bool special : {false, true}) {
    const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, {special, special});
    if (!ids.ok()) {
      CheckRefusal(ids.status());
      continue;
    }
    StreamDecoder decoder(&tokenizer);
    std::string streamed;
    for (const int32_t id : *ids) {
      FuzzCheck(id >= 0 && id < tokenizer.size(), "ids are in range");
      streamed += decoder.Add(id);
    }
    streamed += decoder.Finish();
    FuzzCheck(streamed == tokenizer.Decode(*ids), "streamed text is the decoded text");
  }
}

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_CHECK_TOKENIZER_H_
