// Folders as Hugging Face and Meta lay them out: shards, index, configuration, packed layers, the
// plan of the model, the tokenizer and what stands beside it.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "convert/architecture.h"
#include "convert/quantized_source.h"
#include "convert/tensor_source.h"
#include "convert/tokenizer_import.h"
#include "tests/fuzz/check_tokenizer.h"
#include "tests/fuzz/folder_input.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {
namespace {

constexpr int64_t kMaxTensorBytes = 1 << 16;

// Reads the tensor whole and in ranges, which must say the same.
void ReadTensor(const TensorSource& source, int index) {
  const SourceTensor& tensor = source.tensors()[static_cast<size_t>(index)];
  const DTypeInfo& info = Info(tensor.dtype);
  if (info.block_bytes == 0 || tensor.bytes() > kMaxTensorBytes) return;
  const int64_t n = tensor.elements(), step = info.block_elements * (n % 7 + 9);
  std::vector<uint8_t> whole(static_cast<size_t>(tensor.bytes())), part;
  const bool read = source.Read(index, 0, n, absl::MakeSpan(whole)).ok();
  for (int64_t begin = 0; read && begin < n; begin += step) {
    const int64_t count = std::min(step, n - begin);
    part.resize(static_cast<size_t>(count / info.block_elements * info.block_bytes));
    FuzzCheck(source.Read(index, begin, count, absl::MakeSpan(part)).ok(), "ranges can be read");
    const auto* at = whole.data() + begin / info.block_elements * info.block_bytes;
    FuzzCheck(std::equal(part.begin(), part.end(), at), "ranges are those of the whole");
  }
}

void ReadTokenizer(const std::string& folder) {
  auto proto = ImportTokenizerFolder(folder);
  if (!proto.ok()) return CheckRefusal(proto.status());
  const auto tokenizer = Tokenizer::Create(*std::move(proto));
  if (!tokenizer.ok()) return CheckRefusal(tokenizer.status());
  CheckTokenizer(*tokenizer, "the \xC3\xA9 12 <s> \xFF");
}

void ReadCheckpoint(const std::string& folder) {
  auto source = OpenCheckpoint(folder);
  if (!source.ok()) return CheckRefusal(source.status());
  for (size_t i = 0; i < (*source)->tensors().size(); ++i)
    ReadTensor(**source, static_cast<int>(i));
  auto unpacked = UnpackQuantized(*std::move(source), folder, "", true);
  if (!unpacked.ok()) return CheckRefusal(unpacked.status());
  const auto plan = PlanModel(*unpacked->source, {folder, "", "", unpacked->unpacked});
  if (!plan.ok()) return CheckRefusal(plan.status());
  for (const CanonicalTensor& tensor : plan->tensors) {
    const SourceTensor& from = unpacked->source->tensors()[static_cast<size_t>(tensor.source)];
    FuzzCheck(tensor.shape == from.shape, "a planned tensor has the shape of its source");
    ReadTensor(*unpacked->source, tensor.source);
  }
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  static const std::string folder = "/dev/shm/quire_fuzz_folder." + std::to_string(getpid());
  mkdir(folder.c_str(), 0700);
  const std::vector<FolderFile> files =
      ParseFolder(absl::string_view(reinterpret_cast<const char*>(data), size));
  for (const FolderFile& file : files)
    std::ofstream(folder + "/" + file.Name(), std::ios::binary) << file.content;
  ReadCheckpoint(folder);
  ReadTokenizer(folder);
  for (const FolderFile& file : files) unlink((folder + "/" + file.Name()).c_str());
  FuzzCheck(rmdir(folder.c_str()) == 0, "nothing else was written");
  return 0;
}
