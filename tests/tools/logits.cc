// Logits and greedy continuations of a .quire file, for tests against the reference library.
//
//   logits MODEL [--ctx N] [--threads N] [--greedy N]
//
// Reads token ids, separated by white space, from standard input. Writes to standard output the
// logits after each of them, f32 [tokens][vocab_size] of this machine's byte order; with --greedy
// instead the ids of the N most likely tokens that follow, as text.
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "format/command_line.h"
#include "runtime/session.h"

namespace quire {
namespace {

absl::Status WriteLogits(Session& session, const std::vector<int32_t>& tokens) {
  Transformer& transformer = session.transformer();
  for (absl::Span<const int32_t> rest = tokens; !rest.empty();) {
    const absl::Span<const int32_t> batch = rest.subspan(0, Transformer::kBatchTokens);
    absl::Status status = transformer.Forward(batch);
    if (!status.ok()) return status;
    for (size_t t = 0; t < batch.size(); ++t) {
      std::fwrite(transformer.Logits(t, 1), sizeof(float), session.model().config().vocab_size(),
                  stdout);
    }
    rest.remove_prefix(batch.size());
  }
  return absl::OkStatus();
}

absl::Status WriteGreedy(Session& session, const std::vector<int32_t>& tokens, int64_t n) {
  Sampler sampler(SamplerOptions{});
  return session.Generate(tokens, n, {}, sampler, [](int32_t id) { std::cout << id << "\n"; })
      .status();
}

int Main(absl::Span<char* const> args) {
  constexpr Verb kVerb = {"logits", "MODEL", "logits of token ids.", "logits m.quire < ids", 1, 1};
  SessionOptions options;
  int64_t greedy = 0;
  const Flag table[] = {{"--ctx", &options.ctx, "context"},
                        {"--threads", &options.threads, "threads"},
                        {"--greedy", &greedy, "tokens to generate"}};
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, table, args, &positional, &exit_code)) return exit_code;
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Open(positional[0], options);
  if (!session.ok()) return Report(session.status());
  std::vector<int32_t> tokens;
  for (int32_t id; std::cin >> id;) tokens.push_back(id);
  return Report(greedy > 0 ? WriteGreedy(**session, tokens, greedy)
                           : WriteLogits(**session, tokens));
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) { return quire::Main(absl::MakeConstSpan(argv + 1, argc - 1)); }
