// Manifests and tokenizers by their fields; checksums are the target's business.
#include "format/manifest.pb.h"
#include "format/tokenizer.pb.h"
#include "tests/fuzz/model_file_input.h"
#include "tests/fuzz/protobuf_mutator.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace quire;
  Random random(seed);
  ModelFileInput input =
      ModelFileInput::Parse(absl::string_view(reinterpret_cast<const char*>(data), size));
  switch (random() % 8) {
    case 0:
      input.flags = static_cast<uint8_t>(random() % 8 | random() % 4 << 6);
      break;
    case 1:
    case 2:
      input.tokenizer = MutateSerialized<pb::Tokenizer>(input.tokenizer, random);
      break;
    case 3:
      input.content = MutateBytes(input.content, 512);
      break;
    default:
      input.manifest = MutateSerialized<pb::Manifest>(input.manifest, random);
  }
  if (input.manifest.size() > 0x7fff) input.manifest.resize(0x7fff);
  if (input.tokenizer.size() > 0x7fff) input.tokenizer.resize(0x7fff);
  return StoreMutant(input.Serialize(), data, max_size);
}
