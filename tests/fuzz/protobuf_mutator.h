// Mutations of protobuf messages. Linked into fuzzers only.
#ifndef QUIRE_TESTS_FUZZ_PROTOBUF_MUTATOR_H_
#define QUIRE_TESTS_FUZZ_PROTOBUF_MUTATOR_H_

#include <google/protobuf/message.h>

#include <string>

#include "tests/fuzz/mutators.h"

namespace quire {

// One field, of this message or one below it, changed, removed, moved or repeated.
void MutateMessage(google::protobuf::Message* message, Random& random);

// A serialized T with some fields changed; what is none, and now and then any, with its bytes
// changed.
template <typename T>
std::string MutateSerialized(const std::string& bytes, Random& random) {
  T message;
  if (random() % 8 == 0 || !message.ParseFromString(bytes))
    return MutateBytes(bytes, bytes.size() + 32);
  for (size_t times = 1 + random() % 3; times > 0; --times) MutateMessage(&message, random);
  return message.SerializeAsString();
}

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_PROTOBUF_MUTATOR_H_
