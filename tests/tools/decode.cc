// decode FILE TENSOR: the tensor's elements as f32, raw little-endian on stdout, as convert decodes
// them.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "convert/tensor_source.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: decode FILE TENSOR\n");
    return 2;
  }
  auto source = quire::OpenCheckpoint(argv[1]);
  if (!source.ok()) {
    std::fprintf(stderr, "%s\n", std::string(source.status().message()).c_str());
    return 1;
  }
  int index = 0;
  for (const quire::SourceTensor& tensor : (*source)->tensors()) {
    if (tensor.name == argv[2]) break;
    ++index;
  }
  if (index == static_cast<int>((*source)->tensors().size())) {
    std::fprintf(stderr, "no tensor %s\n", argv[2]);
    return 1;
  }
  const quire::SourceTensor& tensor = (*source)->tensors()[static_cast<size_t>(index)];
  if (!quire::Info(tensor.dtype).decodable) {
    std::fprintf(stderr, "%s is not decodable\n", quire::Info(tensor.dtype).name);
    return 1;
  }
  std::vector<uint8_t> raw(static_cast<size_t>(tensor.bytes()));
  const absl::Status status = (*source)->Read(index, 0, tensor.elements(), absl::MakeSpan(raw));
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  quire::DecodeToFloat(tensor.dtype, raw, absl::MakeSpan(values));
  return std::fwrite(values.data(), sizeof(float), values.size(), stdout) == values.size() ? 0 : 1;
}
