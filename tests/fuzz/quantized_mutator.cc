// The numbers that a layer is made of, or the configuration behind them.
#include <algorithm>

#include "tests/fuzz/mutators.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  constexpr size_t kHeadBytes = 16;
  quire::Random random(seed);
  std::string head(reinterpret_cast<const char*>(data), std::min(size, kHeadBytes));
  std::string config(reinterpret_cast<const char*>(data) + head.size(), size - head.size());
  if (random() % 2 == 0) {
    head = quire::MutateBytes(head, kHeadBytes);
  } else {
    config = quire::MutateJson(config, config.size() + 64, random);
  }
  head.resize(kHeadBytes);
  return quire::StoreMutant(head + config, data, max_size);
}
