// Headers by their JSON.
#include <algorithm>

#include "tests/fuzz/mutators.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  quire::Random random(seed);
  std::string bytes(reinterpret_cast<const char*>(data), std::min<size_t>(size, 2));
  std::string header(reinterpret_cast<const char*>(data) + bytes.size(), size - bytes.size());
  if (random() % 8 == 0) {
    bytes = quire::MutateBytes(bytes, 2);
  } else {
    header = quire::MutateJson(header, header.size() + 64, random);
  }
  bytes.resize(2);
  return quire::StoreMutant(bytes + header, data, max_size);
}
