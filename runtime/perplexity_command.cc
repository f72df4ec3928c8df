#include "runtime/perplexity_command.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "format/command_line.h"
#include "format/file.h"
#include "nlohmann/json.hpp"
#include "runtime/perplexity.h"
#include "runtime/session.h"

namespace quire {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

struct PerplexityFlags {
  std::string text_file;
  SessionOptions session;
  PerplexityOptions options;
  bool json = false;
};

absl::StatusOr<PerplexityResult> Measure(const std::string& path, const PerplexityFlags& flags) {
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Open(path, flags.session);
  if (!session.ok()) return session.status();
  SayWhatIsStreamed(**session);
  const absl::StatusOr<Tokenizer> tokenizer = (*session)->LoadTokenizer();
  if (!tokenizer.ok()) return tokenizer.status();
  const absl::StatusOr<std::string> text = ReadStream(flags.text_file, kMaxTextBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer->Encode(*text);
  if (!tokens.ok()) return tokens.status();
  // A model whose texts begin with a token says so by the empty text.
  const absl::StatusOr<std::vector<int32_t>> empty = tokenizer->Encode("");
  if (!empty.ok()) return empty.status();
  std::optional<int32_t> bos;
  if (!empty->empty() && tokenizer->bos_id() == empty->front()) bos = empty->front();

  const bool terminal = isatty(STDERR_FILENO);
  const int64_t start = MonotonicNanoseconds();
  const auto progress = [&](int64_t done, int64_t chunks) {
    if (!terminal) return;
    const double seconds = static_cast<double>(MonotonicNanoseconds() - start) * 1e-9;
    std::cerr << absl::StreamFormat("\r\x1b[Kperplexity: chunk %d of %d, %.0f s left", done, chunks,
                                    seconds / done * (chunks - done))
              << (done == chunks ? "\r\x1b[K" : "") << std::flush;
  };
  return MeasurePerplexity(**session, *std::move(tokens), bos, flags.options, progress);
}

}  // namespace

int PerplexityCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {
      "perplexity",
      "MODEL",
      "measure how well a model predicts a text, or how far it is from another.",
      "quire perplexity model.quire -f text.txt --chunks 20",
      1,
      1};
  PerplexityFlags flags;
  flags.session.max_logits = 32;
  const Flag table[] = {
      {"-f", &flags.text_file, "the text"},
      {"--ctx",
       &flags.session.ctx,
       "tokens of a chunk, whose second half is scored (without: 512, or what the model has)",
       {1}},
      {"--chunks",
       &flags.options.chunks,
       "chunks to measure at most (without: the whole text)",
       {1}},
      {"--save-logits", &flags.options.save_logits, "write the predictions to this file"},
      {"--force", &flags.options.overwrite, "replace that file if it exists, once it is whole"},
      {"--kl-base", &flags.options.kl_base, "compare with predictions that --save-logits wrote"},
      {"--threads", &flags.session.threads, "threads (without: the CPUs there are)", kThreadsRange},
      {"--resident", &flags.session.resident, kResidentHelp},
      {"--json", &flags.json, "print one JSON object"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, table, args, &positional, &exit_code)) return exit_code;
  if (flags.text_file.empty()) return UsageError(kVerb, "wants -f TEXT");
  const absl::StatusOr<PerplexityResult> result = Measure(positional[0], flags);
  if (!result.ok()) return Report(result.status());

  nlohmann::ordered_json report = {
      {"tokens", result->tokens}, {"nll", result->nll}, {"perplexity", result->perplexity()}};
  if (result->divergence.has_value()) {
    report["mean_kld"] = result->divergence->mean_kld;
    report["p99_kld"] = result->divergence->p99_kld;
    report["top1_agreement"] = result->divergence->top1_agreement;
  }
  if (flags.json) {
    std::cout << report.dump(2) << "\n";
  } else {
    for (const auto& [key, value] : report.items()) std::cout << key << " " << value << "\n";
  }
  return kExitOk;
}

}  // namespace quire
