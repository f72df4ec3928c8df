// Checkpoint files, each kind in its own way.
#include "tests/fuzz/mutators.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  quire::Random random(seed);
  const std::string input(reinterpret_cast<const char*>(data), size);
  std::string mutant;
  if (input.compare(0, 2, "PK") == 0) {
    mutant = quire::MutateZip(input, max_size, random);
  } else if (size > 262 && input.compare(257, 5, "ustar") == 0) {
    mutant = quire::MutateTar(input, max_size);
  } else {
    mutant = random() % 2 == 0 ? quire::MutateBytes(input, max_size)
                               : quire::MutatePickle(input, max_size, random);
  }
  return quire::StoreMutant(mutant, data, max_size);
}
