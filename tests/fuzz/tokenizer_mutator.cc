// Tokenizer sections and sentencepiece models by their fields, tokenizer.json by its values.
#include "convert/sentencepiece_model.pb.h"
#include "format/tokenizer.pb.h"
#include "tests/fuzz/protobuf_mutator.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace quire;
  if (size == 0) {
    data[0] = 'h';
    return 1;
  }
  Random random(seed);
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string mutant;
  switch (data[0]) {
    case 'p':
      mutant = MutateSerialized<pb::Tokenizer>(rest, random);
      break;
    case 's':
      mutant = MutateSerialized<sentencepiece::ModelProto>(rest, random);
      break;
    case 'h':
      mutant = MutateJson(rest, rest.size() + 64, random);
      break;
    default:
      mutant = MutateBytes(rest, rest.size() + 16);
  }
  return StoreMutant(std::string(1, static_cast<char>(data[0])) + mutant, data, max_size);
}
