// .quire files: header and manifest, all checks, the tokenizer, a few tokens of the forward pass.
#include "format/model_file.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "format/header.h"
#include "format/inspect.h"
#include "format/manifest_check.h"
#include "runtime/kernels/kernels.h"
#include "runtime/model.h"
#include "runtime/transformer.h"
#include "tests/fuzz/check_tokenizer.h"
#include "tests/fuzz/model_file_input.h"

namespace quire {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;

// The file that the input stands for. *whole: everything in it is right but, maybe, scales.
std::string BuildFile(const ModelFileInput& input, bool* whole) {
  std::string manifest_bytes = input.manifest;
  int64_t file_bytes = RoundUp(
      kHeaderBytes + static_cast<int64_t>(manifest_bytes.size() + input.content.size()), 16384);
  pb::Manifest manifest;
  std::string content = input.content.empty() ? std::string(1, '\0') : input.content;
  std::string file;
  *whole = false;
  if ((input.flags & ModelFileInput::kPlace) != 0 && manifest.ParseFromString(manifest_bytes) &&
      CheckManifest(manifest).ok()) {
    manifest.clear_tokenizer();
    if (!input.tokenizer.empty()) manifest.mutable_tokenizer()->set_xxh3(0);
    for (pb::TensorEntry& tensor : *manifest.mutable_tensors()) {
      tensor.set_offset(1);
      tensor.set_bytes(1);
      tensor.set_xxh3(0);
    }
    double bytes = 0;
    for (const pb::TensorEntry& tensor : manifest.tensors()) {
      bytes += static_cast<double>(GeometryOf(tensor).bytes()) + 16384;
    }
    if (bytes < kMaxFileBytes) {
      const auto tokenizer_bytes = static_cast<int64_t>(input.tokenizer.size());
      if (tokenizer_bytes > 0) {
        manifest.mutable_tokenizer()->set_offset(1);
        manifest.mutable_tokenizer()->set_bytes(1);
      }
      file_bytes =
          PlanOffsets(&manifest, static_cast<int64_t>(manifest.ByteSizeLong()), tokenizer_bytes);
      file.resize(static_cast<size_t>(file_bytes));
      for (pb::TensorEntry& tensor : *manifest.mutable_tensors()) {
        for (size_t i = 0; i < tensor.bytes(); i += content.size()) {
          const size_t n = std::min<size_t>(content.size(), tensor.bytes() - i);
          file.replace(tensor.offset() + i, n, content, 0, n);
        }
        if ((input.flags & ModelFileInput::kSum) != 0)
          tensor.set_xxh3(XXH3_64bits(&file[tensor.offset()], tensor.bytes()));
      }
      if (tokenizer_bytes > 0) {
        file.replace(manifest.tokenizer().offset(), input.tokenizer.size(), input.tokenizer);
        manifest.mutable_tokenizer()->set_xxh3(
            XXH3_64bits(input.tokenizer.data(), input.tokenizer.size()));
      }
      manifest_bytes = manifest.SerializeAsString();
      *whole = (input.flags & ModelFileInput::kCut) == 0;
    }
  }
  file.resize(static_cast<size_t>(file_bytes));
  Header header;
  header.manifest_bytes = static_cast<int64_t>(manifest_bytes.size());
  header.manifest_xxh3 = XXH3_64bits(manifest_bytes.data(), manifest_bytes.size());
  header.file_bytes = file_bytes;
  header.Serialize(reinterpret_cast<uint8_t*>(file.data()));
  file.replace(kHeaderBytes, manifest_bytes.size(), manifest_bytes);
  if ((input.flags & ModelFileInput::kCut) != 0) file.resize(file.size() / 2);
  return file;
}

// From weights that may be anything come logits that may be anything; nothing else is touched.
void RunTokens(const std::string& path) {
  auto model = Model::Open(path);
  if (!model.ok()) return CheckRefusal(model.status());
  static ThreadPool* const pool = new ThreadPool(2);
  static const KernelTable* const kernels = ChooseKernels();
  const int64_t ctx = std::min<int64_t>(4, model->config().context_tokens());
  auto transformer = Transformer::Create(*model, *kernels, *pool, ctx);
  if (!transformer.ok()) return CheckRefusal(transformer.status());
  const std::vector<int32_t> tokens(static_cast<size_t>(ctx), 0);
  FuzzCheck((*transformer)->Forward(tokens).ok(), "tokens of the vocabulary can be computed");
  FuzzCheck((*transformer)->Logits().size() == model->config().vocab_size(), "logits for each");
  FuzzCheck(!(*transformer)->Forward({0}).ok(), "the context is full");
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  bool whole;
  const std::string file = BuildFile(
      ModelFileInput::Parse(absl::string_view(reinterpret_cast<const char*>(data), size)), &whole);
  const std::string path = FuzzFile(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  auto model = ModelFile::Open(path);
  if (!model.ok()) {
    CheckRefusal(model.status());
    FuzzCheck(!whole, "what is whole can be opened");
    return 0;
  }
  FuzzCheck(InspectModelFile(path, true, true, *std::make_unique<std::ostringstream>()).ok(),
            "what can be opened can be inspected");
  const absl::Status verified = model->Verify([](int64_t) {});
  if (!verified.ok()) CheckRefusal(verified);
  if (model->has_tokenizer()) {
    auto proto = model->LoadTokenizer();
    if (proto.ok()) {
      auto tokenizer = Tokenizer::Create(*std::move(proto));
      if (!tokenizer.ok()) {
        CheckRefusal(tokenizer.status());
      } else {
        CheckTokenizer(*tokenizer, "the \xC3\xA9 12 <s> \xFF");
      }
    }
  }
  RunTokens(path);
  return 0;
}
