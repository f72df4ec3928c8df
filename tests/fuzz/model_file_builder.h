// .quire files of what a fuzzer changes.
#ifndef QUIRE_TESTS_FUZZ_MODEL_FILE_BUILDER_H_
#define QUIRE_TESTS_FUZZ_MODEL_FILE_BUILDER_H_

#include <string>

#include "tests/fuzz/model_file_input.h"

namespace quire {

// The file that the input stands for. *whole: everything in it is right but, maybe, scales.
std::string BuildModelFile(const ModelFileInput& input, bool* whole);

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_MODEL_FILE_BUILDER_H_
