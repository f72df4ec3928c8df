// safetensors: the first two bytes of the input are the number of bytes of data, the rest is the
// header, whose length is said truthfully.
#include <algorithm>
#include <vector>

#include "convert/tensor_source.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  using namespace quire;
  if (size < 2) return 0;
  const int64_t data_bytes = input[0] | input[1] << 8;
  std::vector<uint8_t> file(8 + size - 2);
  for (int i = 0; i < 8; ++i)
    file[static_cast<size_t>(i)] = static_cast<uint8_t>((size - 2) >> (8 * i));
  std::copy(input + 2, input + size, file.begin() + 8);
  for (int64_t i = 0; i < data_bytes; ++i) file.push_back(static_cast<uint8_t>(i % 251));
  auto source = OpenSafetensors(FuzzFile(file.data(), file.size()));
  if (!source.ok()) {
    const absl::string_view message = source.status().message();
    FuzzCheck(!message.empty() && message.size() < 2000, "a refusal says why, in a line");
    return 0;
  }
  // Tensors fill the data, one behind the other.
  int64_t at = 0;
  for (size_t i = 0; i < (*source)->tensors().size(); ++i) {
    const SourceTensor& tensor = (*source)->tensors()[i];
    FuzzCheck(!tensor.name.empty() && tensor.elements() >= 0, "a tensor has a name and a size");
    FuzzCheck(tensor.bytes() <= data_bytes - at, "a tensor is inside of the data");
    std::vector<uint8_t> whole(static_cast<size_t>(tensor.bytes()));
    const int index = static_cast<int>(i);
    FuzzCheck((*source)->Read(index, 0, tensor.elements(), absl::MakeSpan(whole)).ok(),
              "a tensor that was listed can be read");
    for (const uint8_t byte : whole) FuzzCheck(byte == at++ % 251, "its bytes are its own");
  }
  FuzzCheck(at == data_bytes, "no byte is left over");
  return 0;
}
