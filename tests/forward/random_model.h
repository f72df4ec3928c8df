// Models of random weights for tests, and the forward pass written down plainly.
#ifndef QUIRE_TESTS_FORWARD_RANDOM_MODEL_H_
#define QUIRE_TESTS_FORWARD_RANDOM_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "format/encoding.h"
#include "format/manifest.pb.h"

namespace quire {

// Two small layers of the "llama" architecture with grouped queries and sizes that are no multiples
// of 16; change what a test is about.
pb::ModelConfig SmallConfig();

// Writes a model (without tokenizer) to `path`, replacing it. Matrices are in `encoding`; the
// output matrix, or a tied embedding, in `output`. Weights depend on the seed alone. `claimed`: a
// configuration that the file states instead of its own. Aborts where it cannot be written.
void WriteRandomModel(const std::string& path, const pb::ModelConfig& config, Encoding encoding,
                      Encoding output, uint64_t seed, const pb::ModelConfig* claimed = nullptr);

// Logits [tokens][vocab_size] after each token, in double and one token at a time, from the
// definitions: weights as DecodeUnit gives them, activations rounded where weights are integers,
// keys and values rounded to f16.
std::vector<std::vector<double>> ReferenceLogits(const std::string& path,
                                                 absl::Span<const int32_t> tokens);

// Fixed ids below vocab_size.
std::vector<int32_t> SomeTokens(int n, const pb::ModelConfig& config);

}  // namespace quire

#endif  // QUIRE_TESTS_FORWARD_RANDOM_MODEL_H_
