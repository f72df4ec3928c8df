// Mutations that know the structure of what they change, so that mutants get past counts, lengths
// and checksums. Linked into fuzzers only.
#ifndef QUIRE_TESTS_FUZZ_MUTATORS_H_
#define QUIRE_TESTS_FUZZ_MUTATORS_H_

#include <stddef.h>
#include <stdint.h>

#include <random>
#include <string>

namespace quire {

using Random = std::minstd_rand;

inline size_t Below(size_t n, Random& random) { return n == 0 ? 0 : random() % n; }

// As libFuzzer changes bytes.
std::string MutateBytes(std::string bytes, size_t max_bytes);

// Pickles, or a stream of them, by whole opcodes: removed, repeated, moved, their argument changed
// with its length mended, others put between.
std::string MutatePickle(const std::string& pickle, size_t max_bytes, Random& random);
// The beginning of `a`, a run of opcodes of `b`, the rest of `a`.
std::string SplicePickles(const std::string& a, const std::string& b, Random& random);

// A zip archive with a record, a name or a field changed, and offsets and CRC-32s made right again.
// Records named data.pkl are changed as pickles.
std::string MutateZip(const std::string& zip, size_t max_bytes, Random& random);

// A tar archive with its bytes changed and the sums of its headers made right again.
std::string MutateTar(const std::string& tar, size_t max_bytes);

// A JSON text with a value replaced, moved, wrapped, removed or under another key; one that is
// none, and now and then any, with its bytes changed.
std::string MutateJson(const std::string& text, size_t max_bytes, Random& random);

// A file of safetensors with its header's JSON changed and its length made right again, or its
// other bytes changed.
std::string MutateSafetensors(const std::string& file, size_t max_bytes, Random& random);

// What a custom mutator of libFuzzer returns: `mutant` in `data`, cut to max_bytes.
size_t StoreMutant(const std::string& mutant, uint8_t* data, size_t max_bytes);

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_MUTATORS_H_
