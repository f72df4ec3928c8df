// GGUF files (ggml, llama.cpp): little-endian, versions 2 and 3. OpenGguf is declared in
// tensor_source.h; its metadata() gives scalars and strings as JSON text, and arrays as
// {"type": "string", "length": 32000}.
#ifndef QUIRE_CONVERT_GGUF_H_
#define QUIRE_CONVERT_GGUF_H_

#include <string>

#include "absl/status/statusor.h"
#include "convert/tokenizer_import.h"

namespace quire {

// What the file's metadata says about its tokenizer. NotFound where it has none.
absl::StatusOr<GgufTokenizerFields> ReadGgufTokenizer(const std::string& path);

}  // namespace quire

#endif  // QUIRE_CONVERT_GGUF_H_
