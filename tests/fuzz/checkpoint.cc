// Files of any kind, as `quire inspect` opens them: torch's zip, stream and tar, safetensors.
#include <algorithm>
#include <vector>

#include "convert/tensor_source.h"
#include "convert/torch_listing.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  auto source = OpenCheckpointFile(FuzzFile(data, size));
  if (!source.ok()) {
    FuzzCheck(!source.status().message().empty(), "a refusal says why");
    return 0;
  }
  const absl::string_view container = (*source)->container();
  int64_t bytes = 0;
  for (size_t i = 0; i < (*source)->tensors().size(); ++i) {
    const SourceTensor& tensor = (*source)->tensors()[i];
    const DTypeInfo& info = Info(tensor.dtype);
    if (info.block_bytes == 0) continue;
    FuzzCheck(!tensor.name.empty() || container != "safetensors", "a tensor has a name");
    FuzzCheck(tensor.elements() >= 0 && tensor.bytes() >= 0, "sizes do not wrap");
    bytes += tensor.bytes();
    const int64_t blocks = std::min<int64_t>(tensor.elements() / info.block_elements, 4096);
    std::vector<uint8_t> out(static_cast<size_t>(blocks * info.block_bytes));
    const int index = static_cast<int>(i);
    const bool read =
        (*source)->Read(index, 0, blocks * info.block_elements, absl::MakeSpan(out)).ok();
    // Only a damaged deflate stream is not seen until it is read.
    FuzzCheck(read || container == "torch-zip", "a tensor that was listed can be read");
    (void)(*source)->Verify(index);
  }
  if (container == "safetensors") {
    FuzzCheck(bytes < static_cast<int64_t>(size), "tensors do not overlap");
  }
  return 0;
}
