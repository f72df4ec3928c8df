#include "runtime/run_command.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"
#include "format/file.h"
#include "nlohmann/json.hpp"
#include "runtime/chat_template.h"
#include "runtime/process_clock.h"
#include "runtime/session.h"

namespace quire {
namespace {

constexpr int64_t kMaxPromptBytes = int64_t{64} << 20;

struct RunFlags {
  std::vector<std::string> prompts;  // at most one: an empty prompt is not the same as none
  std::string prompt_file;
  int64_t max_tokens = 128;
  SessionOptions session;
  SamplerOptions sampler;
  int64_t seed = 0;
  bool ignore_eos = false, chat = false, verify = false, json = false;
};

// Text that leaves as it comes, and is kept.
class Output {
 public:
  // `continues`: the text goes on where a prompt ended.
  Output(const Tokenizer& tokenizer, bool continues, bool print)
      : decoder_(&tokenizer, {/*print_special=*/false, continues}), print_(print) {}

  void Add(int32_t id) { Show(decoder_.Add(id)); }
  void Finish() { Show(decoder_.Finish()); }
  const std::string& text() const { return text_; }
  double first_ms() const { return first_ms_; }  // when the first token had been shown

 private:
  void Show(const std::string& text) {
    text_ += text;
    if (print_) std::cout << text << std::flush;
    if (first_ms_ < 0) first_ms_ = MillisecondsSinceStart();
  }

  StreamDecoder decoder_;
  bool print_;
  std::string text_;
  double first_ms_ = -1;
};

double PerSecond(int64_t tokens, double seconds) {
  return tokens > 0 && seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

struct Run {
  const RunFlags& flags;
  Session& session;
  const Tokenizer& tokenizer;
  Sampler sampler;

  // Continues the prompt and prints what the flags ask for. Returns the text.
  absl::StatusOr<std::string> Answer(const std::vector<int32_t>& prompt) {
    Output output(tokenizer, /*continues=*/!flags.chat, /*print=*/!flags.json);
    const absl::Span<const int32_t> stop_at =
        flags.ignore_eos ? absl::Span<const int32_t>() : tokenizer.eos_ids();
    const absl::StatusOr<Generation> generation = session.Generate(
        prompt, flags.max_tokens, stop_at, sampler, [&](int32_t id) { output.Add(id); });
    if (!generation.ok()) return generation.status();
    output.Finish();
    if (flags.json) {
      const int64_t generated = generation->tokens.size();
      const nlohmann::ordered_json report = {
          {"text", output.text()},
          {"prompt_tokens", prompt},
          {"tokens", generation->tokens},
          {"open_ms", session.open_ms()},
          {"first_token_ms", generated > 0 ? nlohmann::ordered_json(output.first_ms()) : nullptr},
          {"prefill_tokens_per_second",
           PerSecond(generation->prefilled, generation->prefill_seconds)},
          {"decode_tokens_per_second", PerSecond(generated - 1, generation->decode_seconds)},
          {"ctx", session.transformer().ctx()},
          {"threads", session.pool().size()},
          {"kernels", session.kernels().name},
          {"kv_cache_bytes", session.transformer().kv_cache_bytes()},
          {"scratch_bytes", session.transformer().scratch_bytes()},
          {"weights_kept_bytes", session.feed().residence().kept_bytes},
          {"weights_streamed_bytes", session.feed().residence().streamed_bytes},
          {"stream_buffer_bytes", session.feed().ring_bytes()},
          {"residence_changes", session.feed().changes()},
      };
      std::cout << report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
    } else {
      std::cout << "\n";
    }
    if (!std::cout.flush()) return absl::UnknownError("standard output cannot be written");
    if (generation->stopped == StopReason::kContext) {
      std::cerr << "quire: stopped: the context of " << session.transformer().ctx()
                << " tokens is full (--ctx makes it longer)\n";
    }
    return output.text();
  }

  absl::Status Complete(const std::string& text) {
    Tokenizer::EncodeOptions options;
    options.add_eos = false;
    const absl::StatusOr<std::vector<int32_t>> prompt = tokenizer.Encode(text, options);
    if (!prompt.ok()) return prompt.status();
    if (prompt->empty())
      return absl::InvalidArgumentError("the prompt is empty, and this model begins with no token");
    return Answer(*prompt).status();
  }

  // `text`: the only message; null: messages are the lines of standard input, each answered in
  // turn.
  absl::Status Chat(const std::string* text) {
    absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Create(tokenizer.chat_template());
    if (!chat_template.ok()) return chat_template.status();
    ChatTemplate::Options options;
    if (tokenizer.bos_id().has_value())
      options.bos_token = std::string(tokenizer.piece(*tokenizer.bos_id()));
    if (!tokenizer.eos_ids().empty())
      options.eos_token = std::string(tokenizer.piece(tokenizer.eos_ids()[0]));
    std::vector<ChatMessage> conversation;
    std::string line = text == nullptr ? "" : *text;
    while (text != nullptr || NextLine(&line)) {
      conversation.push_back({"user", line});
      const absl::StatusOr<std::string> rendered = chat_template->Render(conversation, options);
      if (!rendered.ok()) return rendered.status();
      const absl::StatusOr<std::vector<int32_t>> prompt =
          tokenizer.Encode(*rendered, {/*add_special=*/false, /*parse_special=*/true});
      if (!prompt.ok()) return prompt.status();
      absl::StatusOr<std::string> answer = Answer(*prompt);
      if (!answer.ok()) return answer.status();
      if (text != nullptr) break;
      conversation.push_back({"assistant", *std::move(answer)});
    }
    return absl::OkStatus();
  }

  static bool NextLine(std::string* line) {
    if (isatty(STDIN_FILENO)) std::cerr << "> " << std::flush;
    return static_cast<bool>(std::getline(std::cin, *line));
  }
};

absl::Status RunModel(const std::string& path, const RunFlags& flags) {
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Open(path, flags.session);
  if (!session.ok()) return session.status();
  if (flags.verify) {
    const ModelFile& file = (*session)->model().file();
    Progress progress("verify", file.mapping().size());
    absl::Status whole = file.Verify([&](int64_t done) { progress.Update(done); });
    if (!whole.ok()) return whole;
  }
  const absl::StatusOr<Tokenizer> tokenizer = (*session)->LoadTokenizer();
  if (!tokenizer.ok()) return tokenizer.status();
  SayWhatIsStreamed(**session);
  Run run{flags, **session, *tokenizer, Sampler(flags.sampler)};

  absl::StatusOr<std::string> text;
  if (!flags.prompts.empty()) {
    text = flags.prompts[0];
  } else if (!flags.prompt_file.empty()) {
    text = ReadStream(flags.prompt_file, kMaxPromptBytes);
  } else if (flags.chat) {
    return run.Chat(nullptr);
  } else {
    text = ReadStream(STDIN_FILENO, "standard input", kMaxPromptBytes);
  }
  if (!text.ok()) return text.status();
  return flags.chat ? run.Chat(&*text) : run.Complete(*text);
}

}  // namespace

int RunCommand(absl::Span<char* const> args) {
  MillisecondsSinceStart();
  constexpr Verb kVerb = {"run",
                          "MODEL",
                          "generate text, straight from the mapped file.",
                          "quire run model.quire -p \"Once upon a time\" -n 64",
                          1,
                          1};
  RunFlags flags;
  const Flag table[] = {
      {"-p", &flags.prompts, "the prompt; without -p and -f it is read from stdin"},
      {"-f", &flags.prompt_file, "a file, or a pipe, that holds the prompt"},
      {"-n", &flags.max_tokens, "tokens to generate at most", {0}},
      {"--ctx", &flags.session.ctx, "context in tokens (without: 512, or what the model has)", {1}},
      {"--temp", &flags.sampler.temperature, "temperature; without: always the most likely token"},
      {"--top-k", &flags.sampler.top_k, "draw from the K most likely tokens (without: all)"},
      {"--top-p", &flags.sampler.top_p, "draw from the likeliest that together reach P"},
      {"--min-p", &flags.sampler.min_p,
       "draw from those at least P times as likely as the likeliest"},
      {"--repeat-penalty", &flags.sampler.repeat_penalty, "make the last 64 tokens less likely"},
      {"--seed", &flags.seed, "of the random draws: one seed, one text"},
      {"--ignore-eos", &flags.ignore_eos, "go on after the model has ended its text"},
      {"--chat", &flags.chat, "a conversation by the model's chat template; lines of stdin, or -p"},
      {"--threads", &flags.session.threads, "threads (without: the CPUs there are)", kThreadsRange},
      {"--resident", &flags.session.resident, kResidentHelp},
      {"--verify", &flags.verify, "first check every byte of the file, as quire verify does"},
      {"--json", &flags.json, "print one JSON object"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, table, args, &positional, &exit_code)) return exit_code;
  const size_t prompts = flags.prompts.size() + (flags.prompt_file.empty() ? 0 : 1);
  if (prompts > 1) return UsageError(kVerb, "one prompt at a time: -p or -f, once");
  if (flags.json && flags.chat && prompts == 0)
    return UsageError(kVerb, "--json with --chat wants the message by -p or -f");
  flags.sampler.seed = static_cast<uint64_t>(flags.seed);
  if (absl::Status status = CheckSamplerOptions(flags.sampler); !status.ok())
    return UsageError(kVerb, status.message());
  return Report(RunModel(positional[0], flags));
}

}  // namespace quire
