// Pickles by whole opcodes.
#include "tests/fuzz/mutators.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  quire::Random random(seed);
  const std::string input(reinterpret_cast<const char*>(data), size);
  return quire::StoreMutant(random() % 4 == 0 ? quire::MutateBytes(input, max_size)
                                              : quire::MutatePickle(input, max_size, random),
                            data, max_size);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* a, size_t a_size, const uint8_t* b,
                                            size_t b_size, uint8_t* out, size_t max_size,
                                            unsigned seed) {
  quire::Random random(seed);
  return quire::StoreMutant(
      quire::SplicePickles(std::string(reinterpret_cast<const char*>(a), a_size),
                           std::string(reinterpret_cast<const char*>(b), b_size), random),
      out, max_size);
}
