// Configurations by their JSON.
#include "tests/fuzz/mutators.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  quire::Random random(seed);
  const std::string input(reinterpret_cast<const char*>(data), size);
  return quire::StoreMutant(quire::MutateJson(input, max_size, random), data, max_size);
}
