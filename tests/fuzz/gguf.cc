// GGUF: header, tokenizer, plan, and the tensors that a plan names.
#include "convert/gguf.h"

#include <algorithm>
#include <vector>

#include "convert/architecture.h"
#include "convert/tensor_source.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {
namespace {

void ReadTensor(const TensorSource& source, int index) {
  const SourceTensor& tensor = source.tensors()[static_cast<size_t>(index)];
  const DTypeInfo& info = Info(tensor.dtype);
  if (!info.decodable) return;
  const int64_t count = std::min<int64_t>(tensor.elements(), 4096);
  std::vector<uint8_t> raw(static_cast<size_t>(count / info.block_elements * info.block_bytes));
  const bool read = source.Read(index, 0, count, absl::MakeSpan(raw)).ok();
  FuzzCheck(read, "a tensor that was listed can be read");
  std::vector<float> values(static_cast<size_t>(count));
  DecodeToFloat(tensor.dtype, raw, absl::MakeSpan(values));
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  const std::string path = FuzzFile(data, size);
  auto source = OpenGguf(path);
  if (!source.ok()) {
    FuzzCheck(!source.status().message().empty(), "a refusal says why");
    FuzzCheck(!ReadGgufTokenizer(path).ok(), "what is refused has no tokenizer");
    return 0;
  }
  int64_t bytes = 0;
  for (size_t i = 0; i < (*source)->tensors().size(); ++i) {
    bytes += (*source)->tensors()[i].bytes();
    ReadTensor(**source, static_cast<int>(i));
  }
  FuzzCheck(bytes <= static_cast<int64_t>(size), "tensors do not overlap");
  auto tokenizer = ReadGgufTokenizer(path);
  if (tokenizer.ok()) FuzzCheck(tokenizer->tokens.size() <= size / 8, "tokens are in the file");
  auto plan = PlanModel(**source, {path, "", ""});
  if (!plan.ok()) {
    FuzzCheck(!plan.status().message().empty(), "a refusal says why");
    return 0;
  }
  for (const CanonicalTensor& tensor : plan->tensors) {
    const SourceTensor& from = (*source)->tensors()[static_cast<size_t>(tensor.source)];
    FuzzCheck(tensor.shape == from.shape, "a planned tensor has the shape of its source");
    const int64_t rows = tensor.shape[0];
    if (rows > 4096) continue;
    std::vector<bool> seen(static_cast<size_t>(rows));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t source_row = SourceRow(tensor, row);
      FuzzCheck(source_row >= 0 && source_row < rows && !seen[static_cast<size_t>(source_row)],
                "rows are permuted");
      seen[static_cast<size_t>(source_row)] = true;
    }
  }
  return 0;
}
