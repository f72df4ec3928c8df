#include "runtime/session.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"
#include "format/sigbus_guard.h"

namespace quire {
namespace {

double SecondsSince(int64_t start_ns) {
  return static_cast<double>(MonotonicNanoseconds() - start_ns) * 1e-9;
}

absl::Status NoSuchKernels() {
  std::string here;
  for (const KernelTable* const* table = AllKernels(); *table != nullptr; ++table) {
    if ((*table)->supported()) absl::StrAppend(&here, here.empty() ? "" : ", ", (*table)->name);
  }
  const char* wanted = std::getenv("QUIRE_KERNELS");
  return absl::FailedPreconditionError(
      absl::StrCat("QUIRE_KERNELS=", wanted == nullptr ? "" : wanted,
                   ": no such kernels on this CPU, which can run: ", here));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const std::string& path,
                                                       const SessionOptions& options) {
  constexpr int64_t kMaxThreads = 1024;
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("--threads is ", options.threads, ", wanted 1 to ", kMaxThreads));
  }
  const KernelTable* kernels = ChooseKernels();
  if (kernels == nullptr) return NoSuchKernels();
  const int64_t start = MonotonicNanoseconds();
  absl::StatusOr<Model> model = Model::Open(path);
  if (!model.ok()) return model.status();
  const double open_ms = 1e3 * SecondsSince(start);
  ExplainSigbus(path);

  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : DefaultThreads();
  std::unique_ptr<Session> self(new Session(*std::move(model), *kernels, threads));
  self->open_ms_ = open_ms;
  const int64_t ctx = options.ctx != 0
                          ? options.ctx
                          : std::min<int64_t>(kDefaultCtx, self->model_.config().context_tokens());
  absl::StatusOr<std::unique_ptr<Transformer>> transformer =
      Transformer::Create(self->model_, *kernels, self->pool_, ctx, options.max_logits);
  if (!transformer.ok()) return transformer.status();
  self->transformer_ = *std::move(transformer);
  self->feed_ = std::make_unique<LayerFeed>(self->model_, options.resident.bytes,
                                            self->transformer_->GrowthBytes(1));
  self->transformer_->set_feed(self->feed_.get());
  return self;
}

absl::StatusOr<Tokenizer> Session::LoadTokenizer() const {
  const std::string& path = model_.file().path();
  if (!model_.file().has_tokenizer()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": has no tokenizer; convert it again with --tokenizer FILE"));
  }
  absl::StatusOr<pb::Tokenizer> stored = model_.file().LoadTokenizer();
  if (!stored.ok()) return stored.status();
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(*std::move(stored));
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(),
                        absl::StrCat(path, ": tokenizer: ", tokenizer.status().message()));
  }
  if (tokenizer->size() > static_cast<int64_t>(model_.config().vocab_size())) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the tokenizer has ", tokenizer->size(),
                                                   " pieces, the embedding ",
                                                   model_.config().vocab_size(), " rows"));
  }
  return tokenizer;
}

absl::StatusOr<Generation> Session::Generate(const std::vector<int32_t>& prompt, int64_t max_tokens,
                                             absl::Span<const int32_t> stop_at, Sampler& sampler,
                                             absl::FunctionRef<void(int32_t id)> on_token) {
  if (prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
  const int64_t n = prompt.size(), ctx = transformer_->ctx();
  if (n > ctx) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the prompt is ", n, " tokens long, the context ", ctx, "; --ctx takes up to ",
                     model_.config().context_tokens()));
  }
  Generation result;
  const int64_t start = MonotonicNanoseconds();
  // The last token is always computed: its logits are needed.
  const int64_t known =
      std::mismatch(prompt.begin(), prompt.end() - 1, sequence_.begin(), sequence_.end()).first -
      prompt.begin();
  result.prefilled = n - known;
  transformer_->Rewind(known);
  sequence_.resize(known);
  absl::Status status = transformer_->Forward(absl::MakeConstSpan(prompt).subspan(known));
  if (!status.ok()) return status;
  sequence_ = prompt;

  int64_t first = start;
  while (static_cast<int64_t>(result.tokens.size()) < max_tokens) {
    const int32_t id = sampler.Sample(transformer_->Logits(), sequence_);
    result.tokens.push_back(id);
    on_token(id);
    if (result.tokens.size() == 1) {
      result.prefill_seconds = SecondsSince(start);
      first = MonotonicNanoseconds();
    }
    if (std::find(stop_at.begin(), stop_at.end(), id) != stop_at.end()) {
      result.stopped = StopReason::kEndOfText;
      break;
    }
    if (static_cast<int64_t>(result.tokens.size()) == max_tokens) break;
    if (transformer_->position() == ctx) {
      result.stopped = StopReason::kContext;
      break;
    }
    status = transformer_->Forward({id});
    if (!status.ok()) return status;
    sequence_.push_back(id);
  }
  if (result.tokens.empty()) result.prefill_seconds = SecondsSince(start);
  if (result.tokens.size() > 1) result.decode_seconds = SecondsSince(first);
  status = model_.file().mapping().CheckUnchanged();
  if (!status.ok()) return status;
  return result;
}

void SayWhatIsStreamed(const Session& session) {
  const std::string text = session.feed().Describe();
  if (!text.empty()) std::cerr << "quire: " << text << "\n";
}

}  // namespace quire
