// What is made of .quire files: exports, and files in fewer bits. The highest bits of the input's
// flags say which.
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert/export/export.h"
#include "convert/tensor_source.h"
#include "format/model_file.h"
#include "format/thread_pool.h"
#include "quantize/quantize_file.h"
#include "tests/fuzz/fuzz_file.h"
#include "tests/fuzz/model_file_builder.h"

namespace quire {
namespace {

constexpr int64_t kMemoryBudget = int64_t{64} << 20;

void CheckRefusal(const absl::Status& status) {
  const absl::string_view message = status.message();
  FuzzCheck(!message.empty() && message.size() < 4000, "a refusal says why, in a line");
  FuzzCheck(message.find('\n') == absl::string_view::npos, "a message is one line");
  FuzzCheck(!absl::IsInternal(status), "what a file says is no fault of ours");
}

void CheckOk(const absl::Status& status, const char* what) {
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  FuzzCheck(status.ok(), what);
}

void Remove(const std::string& path) {
  if (DIR* folder = opendir(path.c_str())) {
    while (const dirent* entry = readdir(folder)) unlink((path + "/" + entry->d_name).c_str());
    closedir(folder);
    rmdir(path.c_str());
  } else {
    unlink(path.c_str());
  }
}

// A tensor of zeros and infinities is no error, so values are not compared; names and sizes are.
void TryExport(const ModelFile& model, const std::string& format, const std::string& path,
               ThreadPool& pool) {
  const auto report = Export(model, format, path, true, pool, [](int64_t) {});
  if (!report.ok()) {
    CheckRefusal(report.status());
    FuzzCheck(access(path.c_str(), F_OK) != 0, "what is refused leaves nothing");
    return;
  }
  const auto source = OpenCheckpoint(path);
  CheckOk(source.status(), "what was exported can be opened");
  for (const SourceTensor& tensor : (*source)->tensors())
    FuzzCheck(tensor.elements() > 0, "tensors are not empty");
  Remove(path);
}

void TryQuantize(const ModelFile& model, const std::string& path, ThreadPool& pool) {
  for (const char* type : {"q4", "q4_0"}) {
    const auto scheme = SchemeFor(type, 0);
    auto plan = PlanQuantization(model, *scheme, {});
    if (!plan.ok()) return CheckRefusal(plan.status());
    const auto done = QuantizeFile(model, *plan, path, true, kMemoryBudget, pool, [](int64_t) {});
    if (!done.ok()) {
      CheckRefusal(done.status());
      FuzzCheck(access(path.c_str(), F_OK) != 0, "what is refused leaves nothing");
      continue;
    }
    const auto made = ModelFile::Open(path);
    CheckOk(made.status(), "what was made can be opened");
    CheckOk(made->Verify([](int64_t) {}), "what was made verifies");
    Remove(path);
  }
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  const auto input =
      ModelFileInput::Parse(absl::string_view(reinterpret_cast<const char*>(data), size));
  bool whole;
  const std::string file = BuildModelFile(input, &whole);
  const auto model =
      ModelFile::Open(FuzzFile(reinterpret_cast<const uint8_t*>(file.data()), file.size()));
  if (!model.ok()) return 0;
  static ThreadPool* const pool = new ThreadPool(2);
  static const std::string path = "/dev/shm/quire_fuzz_derived." + std::to_string(getpid());
  switch (input.flags >> 6) {
    case 0:
      TryExport(*model, "gguf", path, *pool);
      break;
    case 1:
      TryExport(*model, "safetensors", path, *pool);
      break;
    case 2:
      TryExport(*model, "compressed-tensors", path, *pool);
      break;
    default:
      TryQuantize(*model, path, *pool);
  }
  return 0;
}
