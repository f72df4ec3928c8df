// Small tokenizers of each kind, made in code: what prompts and mutated tokenizers begin with.
#ifndef QUIRE_TESTS_FUZZ_SAMPLE_TOKENIZERS_H_
#define QUIRE_TESTS_FUZZ_SAMPLE_TOKENIZERS_H_

#include <vector>

#include "format/tokenizer.pb.h"

namespace quire {

// Byte-level BPE by score; by merges, with added tokens; sentencepiece's BPE with byte fallback;
// unigram. The first two have a piece for every byte, so that each text comes back as it was.
std::vector<pb::Tokenizer> SampleTokenizers();

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_SAMPLE_TOKENIZERS_H_
