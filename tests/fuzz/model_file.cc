// .quire files: header and manifest, all checks, the tokenizer, a few tokens of the forward pass.
#include "format/model_file.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "format/inspect.h"
#include "runtime/kernels/kernels.h"
#include "runtime/model.h"
#include "runtime/transformer.h"
#include "tests/fuzz/check_tokenizer.h"
#include "tests/fuzz/model_file_builder.h"

namespace quire {
namespace {

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
  const std::string file = BuildModelFile(
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
