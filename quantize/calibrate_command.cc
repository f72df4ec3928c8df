#include "quantize/calibrate_command.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "format/command_line.h"
#include "quantize/calibrate.h"
#include "quantize/layer_inputs.h"
#include "quantize/layer_progress.h"
#include "runtime/session.h"

namespace quire {
namespace {

struct Options {
  std::string model, text_file;
  CalibrateOptions calibrate;
  SessionOptions session;
  ByteSize memory_budget{int64_t{512} << 20};
  int64_t chunks = 0;
};

absl::Status Run(Options options) {
  const int64_t start = MonotonicNanoseconds();
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Open(options.model, options.session);
  if (!session.ok()) return session.status();
  absl::StatusOr<std::vector<int32_t>> tokens =
      CalibrationTokens(**session, options.text_file, options.memory_budget.bytes);
  if (!tokens.ok()) return tokens.status();
  if (options.chunks > 0) {
    tokens->resize(
        std::min<int64_t>(tokens->size(), options.chunks * (*session)->transformer().ctx()));
  }
  options.calibrate.memory_budget = options.memory_budget.bytes;
  absl::Status status;
  {
    LayerProgress progress("calibrate", (*session)->model().config().n_layers());
    status = Calibrate(**session, *tokens, options.calibrate,
                       [&](double part) { progress.Update(part); });
  }
  if (!status.ok()) return status;
  std::cout << absl::StreamFormat("%s: inputs of %d layers over %d tokens in %.1f s\n",
                                  options.calibrate.path, (*session)->model().config().n_layers(),
                                  tokens->size(), (MonotonicNanoseconds() - start) * 1e-9);
  return absl::OkStatus();
}

}  // namespace

int CalibrateCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {"calibrate",
                          "MODEL -o FILE",
                          "measure on a text what a model's matrices multiply.",
                          "quire calibrate model-f16.quire -o model.calibration",
                          1,
                          1};
  Options options;
  const Flag flags[] = {
      {"-o", &options.calibrate.path, "the file to write, for --calibration"},
      {"-f", &options.text_file, "the text (without: a built-in one)"},
      {"--ctx",
       &options.session.ctx,
       "tokens of a sequence (without: 512, or what the model has)",
       {1}},
      {"--chunks", &options.chunks, "sequences to run at most (without: the whole text)", {1}},
      {"--hessians", &options.calibrate.moments,
       "also how inputs vary together, which error feedback needs: 2 bytes x columns^2 an input"},
      {"--memory-budget", &options.memory_budget, "most anonymous memory to use, from 8MiB",
       kMemoryBudgetRange},
      {"--threads", &options.session.threads, "threads (without: the CPUs there are)",
       kThreadsRange},
      {"--force", &options.calibrate.overwrite, "replace FILE if it exists"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, flags, args, &positional, &exit_code)) return exit_code;
  if (options.calibrate.path.empty()) return UsageError(kVerb, "wants -o FILE");
  options.model = positional[0];
  return Report(Run(std::move(options)));
}

}  // namespace quire
