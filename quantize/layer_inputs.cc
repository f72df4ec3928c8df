#include "quantize/layer_inputs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "format/file.h"
#include "quantize/calibration_text.h"
#include "quantize/memory_budget.h"

namespace quire {
namespace {

// Of a byte of text, while it becomes tokens: 41 were measured with sentencepiece's normalizer and
// no pre-tokenizer (a symbol and a place in a heap for each letter), half as many with one.
constexpr int64_t kTokenizingBytes = 64;

absl::Status CheckText(int64_t bytes, int64_t memory_budget) {
  return CheckMemoryBudget(absl::StrCat("tokenizing a calibration text of ", bytes, " bytes"),
                           kTokenizingBytes * bytes, memory_budget);
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t memory_budget) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  if (absl::Status status = CheckText(file->size(), memory_budget); !status.ok()) return status;
  return ReadWholeFile(path, memory_budget);
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> CalibrationTokens(const Session& session,
                                                       const std::string& text_file,
                                                       int64_t memory_budget) {
  std::string content;
  absl::string_view text = CalibrationText();
  if (text_file.empty()) {
    absl::Status status = CheckText(static_cast<int64_t>(text.size()), memory_budget);
    if (!status.ok()) return status;
  } else {
    absl::StatusOr<std::string> read = ReadTextFile(text_file, memory_budget);
    if (!read.ok()) return read.status();
    content = *std::move(read);
    text = content;
  }
  const absl::StatusOr<Tokenizer> tokenizer = session.LoadTokenizer();
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer->Encode(text);
  if (!tokens.ok()) return tokens.status();
  const size_t ctx = session.transformer().ctx();
  if (tokens->size() < ctx) {
    return absl::FailedPreconditionError(absl::StrCat("the calibration text has ", tokens->size(),
                                                      " tokens, wanted are ", ctx, " or more"));
  }
  tokens->resize(tokens->size() / ctx * ctx);
  tokens->shrink_to_fit();
  // A model whose texts begin with a token says so by the empty text.
  const absl::StatusOr<std::vector<int32_t>> empty = tokenizer->Encode("");
  if (!empty.ok()) return empty.status();
  if (!empty->empty() && tokenizer->bos_id() == empty->front()) {
    for (size_t i = 0; i < tokens->size(); i += ctx) (*tokens)[i] = empty->front();
  }
  return tokens;
}

void LayerInputs::Embed(float* states) {
  for (size_t t = 0; t < tokens_.size(); t += Transformer::kBatchTokens) {
    transformer_.EmbedTokens(tokens_.subspan(t, Transformer::kBatchTokens),
                             states + t * model_.config().hidden_dim());
  }
}

void LayerInputs::ForEachBatch(float* states,
                               absl::FunctionRef<void(int64_t position, int64_t n, float* x)> run) {
  const int64_t tokens = tokens_.size(), ctx = transformer_.ctx();
  for (int64_t first = 0; first < tokens;) {
    const int64_t position = first % ctx;
    const int64_t n = std::min({Transformer::kBatchTokens, tokens - first, ctx - position});
    run(position, n, states + first * model_.config().hidden_dim());
    first += n;
  }
}

void LayerInputs::RunAttention(const Layer& layer, float* states,
                               Transformer::ObserveInput observe) {
  ForEachBatch(states, [&](int64_t position, int64_t n, float* x) {
    transformer_.RunAttention(layer, position, n, x, observe);
  });
}

void LayerInputs::RunFeedForward(const Layer& layer, float* states,
                                 Transformer::ObserveInput observe) {
  ForEachBatch(states, [&](int64_t, int64_t n, float* x) {
    transformer_.RunFeedForward(layer, n, x, observe);
  });
}

}  // namespace quire
