#include "runtime/bench_command.h"

#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "format/command_line.h"
#include "nlohmann/json.hpp"
#include "runtime/bench.h"
#include "runtime/process_clock.h"
#include "runtime/session.h"

namespace quire {
namespace {

nlohmann::ordered_json ToJson(const BenchResult& r, const BenchOptions& options) {
  nlohmann::ordered_json processes = nlohmann::ordered_json::array();
  for (const ProcessFigures& p : r.processes) {
    processes.push_back({{"rss_anon_bytes", p.rss_anon_bytes},
                         {"rss_file_bytes", p.rss_file_bytes},
                         {"pss_bytes", p.pss_bytes},
                         {"private_dirty_bytes", p.private_dirty_bytes},
                         {"peak_rss_bytes", p.peak_rss_bytes},
                         {"minor_faults", p.minor_faults},
                         {"major_faults", p.major_faults},
                         {"read_bytes", p.read_bytes}});
  }
  return {{"model_bytes", r.model_bytes},
          {"cold", options.cold},
          {"memory_limit_bytes", options.memory_limit},
          {"resident_before_bytes", r.resident_before_bytes},
          {"prompt_tokens", options.prompt_tokens},
          {"tokens", options.tokens},
          {"repetitions", options.repetitions},
          {"threads", r.threads},
          {"kernels", r.kernels},
          {"open_ms", r.open_ms},
          {"ready_ms", r.ready_ms},
          {"first_token_ms", r.first_token_ms},
          {"prefill_tokens_per_second", r.prefill_tokens_per_second},
          {"decode_tokens_per_second", r.decode_tokens_per_second},
          {"decode_bytes_per_token", r.decode_bytes_per_token},
          {"memory_read_bytes_per_second", r.memory_read_bytes_per_second},
          {"prefill_ops_per_token", r.prefill_ops_per_token},
          {"compute_ops_per_second", r.compute_ops_per_second},
          {"kv_cache_bytes", r.kv_cache_bytes},
          {"scratch_bytes", r.scratch_bytes},
          {"weights_kept_bytes", r.weights_kept_bytes},
          {"weights_streamed_bytes", r.weights_streamed_bytes},
          {"stream_buffer_bytes", r.stream_buffer_bytes},
          {"disk_read_bytes_per_second", r.disk_read_bytes_per_second > 0
                                             ? nlohmann::ordered_json(r.disk_read_bytes_per_second)
                                             : nullptr},
          {"processes", processes},
          {"total_pss_bytes", r.total_pss_bytes}};
}

void Print(const BenchResult& r, const BenchOptions& options) {
  const double decode_rate = r.decode_tokens_per_second * r.decode_bytes_per_token;
  std::cout << absl::StreamFormat("model          %s, %s of it cached before the run\n",
                                  HumanBytes(r.model_bytes), HumanBytes(r.resident_before_bytes));
  std::cout << absl::StreamFormat("open           %.2f ms\n", r.open_ms);
  std::cout << absl::StreamFormat("ready          %.1f ms after the process started\n", r.ready_ms);
  std::cout << absl::StreamFormat("first token    %.1f ms, a prompt of %d tokens included\n",
                                  r.first_token_ms, options.prompt_tokens);
  const double prefill_rate = r.prefill_tokens_per_second * r.prefill_ops_per_token;
  std::cout << absl::StreamFormat(
      "prefill        %.1f tokens/s: %.2f Tops/s of the layers' products, %.0f%% of what %d "
      "threads "
      "compute (%.2f Tops/s)\n",
      r.prefill_tokens_per_second, prefill_rate * 1e-12,
      100 * prefill_rate / r.compute_ops_per_second, r.threads, r.compute_ops_per_second * 1e-12);
  std::cout << absl::StreamFormat(
      "decode         %.1f tokens/s: %s/s of weights, %.0f%% of what %d threads read (%s/s), %s\n",
      r.decode_tokens_per_second, HumanBytes(static_cast<int64_t>(decode_rate)),
      100 * decode_rate / r.memory_read_bytes_per_second, r.threads,
      HumanBytes(static_cast<int64_t>(r.memory_read_bytes_per_second)), r.kernels);
  if (r.weights_streamed_bytes > 0) {
    const double rate = r.decode_tokens_per_second * r.weights_streamed_bytes;
    std::cout << absl::StreamFormat(
        "streamed       %s of weights for each token, %s stay in memory; %s/s",
        HumanBytes(r.weights_streamed_bytes), HumanBytes(r.weights_kept_bytes),
        HumanBytes(static_cast<int64_t>(rate)));
    if (r.disk_read_bytes_per_second > 0) {
      std::cout << absl::StreamFormat(
          ", %.0f%% of what the disk gives (%s/s)", 100 * rate / r.disk_read_bytes_per_second,
          HumanBytes(static_cast<int64_t>(r.disk_read_bytes_per_second)));
    }
    std::cout << "\n";
  }
  std::cout << absl::StreamFormat("KV cache       %s, scratch %s\n", HumanBytes(r.kv_cache_bytes),
                                  HumanBytes(r.scratch_bytes));
  for (const ProcessFigures& p : r.processes) {
    std::cout << absl::StreamFormat(
        "process        anonymous %s + file %s; PSS %s; peak RSS %s; faults %d minor, %d major; "
        "%s read from disk\n",
        HumanBytes(p.rss_anon_bytes), HumanBytes(p.rss_file_bytes), HumanBytes(p.pss_bytes),
        HumanBytes(p.peak_rss_bytes), p.minor_faults, p.major_faults, HumanBytes(p.read_bytes));
  }
  if (r.processes.size() > 1) {
    std::cout << absl::StreamFormat("all processes  %s of memory together (PSS)\n",
                                    HumanBytes(r.total_pss_bytes));
  }
}

}  // namespace

int BenchCommand(absl::Span<char* const> args) {
  MillisecondsSinceStart();
  constexpr Verb kVerb = {"bench",
                          "MODEL",
                          "measure load time, memory and speed, in processes of their own.",
                          "quire bench model.quire --processes 2",
                          1,
                          1};
  BenchOptions options;
  ByteSize limit, resident;
  bool json = false, worker = false;
  constexpr int64_t kMaxProcesses = 256;
  const Flag table[] = {
      {"--prompt-tokens", &options.prompt_tokens, "tokens of the prompt", {1}},
      {"--tokens", &options.tokens, "tokens to generate", {2}},
      {"--repetitions", &options.repetitions, "runs; times and speeds are medians over them", {1}},
      {"--cold", &options.cold, "drop the file from the page cache before each run"},
      {"--processes",
       &options.processes,
       "processes that run the model at once",
       {1, kMaxProcesses}},
      {"--memory-limit", &limit, "for all of them together, page cache included (a cgroup)"},
      {"--threads", &options.threads, "threads of each process (without: the CPUs there are)",
       kThreadsRange},
      {"--resident", &resident, kResidentHelp},
      {"--json", &json, "print one JSON object"},
      // Be one of those processes: print figures, wait for the end of stdin.
      {"--worker", &worker, nullptr},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, table, args, &positional, &exit_code)) return exit_code;
  options.memory_limit = limit.bytes;
  options.resident = resident.bytes;
  if (worker) return Report(BenchWorker(positional[0], options));
  const absl::StatusOr<BenchResult> result = MeasureBench(positional[0], options);
  if (absl::IsAborted(result.status())) return kExitFailure;  // the process has said why
  if (!result.ok()) return Report(result.status());
  if (json) {
    std::cout << ToJson(*result, options).dump(2) << "\n";
  } else {
    Print(*result, options);
  }
  return kExitOk;
}

}  // namespace quire
