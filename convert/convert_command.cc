#include "convert/convert_command.h"

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "convert/convert.h"
#include "convert/sandbox.h"
#include "format/command_line.h"
#include "format/file.h"
#include "format/model_file.h"
#include "format/process_memory.h"
#include "format/writer.h"
#include "quantize/calibrated_encoder.h"

namespace quire {
namespace {

const char* TypeName(const pb::TensorEntry& entry) {
  return Info(static_cast<Encoding>(entry.encoding())).name;
}

// What happens to each tensor, before it happens.
void PrintPlan(const ConvertPlan& plan) {
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const pb::TensorEntry& entry = plan.manifest.tensors(static_cast<int>(i));
    const SourceTensor& from = plan.source->tensors()[plan.tensors[i].tensor.source];
    std::cout << absl::StreamFormat(
        "%-24s %-14s %-9s -> %-5s %11d bytes  from %s%s\n", entry.name(),
        absl::StrJoin(entry.shape(), " x "), Info(from.dtype).name, TypeName(entry), entry.bytes(),
        from.name, plan.tensors[i].carried ? ", blocks carried over bit for bit" : "");
  }
  for (const auto& [name, why] : plan.left_out)
    std::cout << "left out: " << name << " (" << why << ")\n";
  std::cout << absl::StreamFormat(
      "%d tensors, %s -> %s, %.2f bits per weight in the layers' matrices\n", plan.tensors.size(),
      HumanBytes(plan.source_bytes), HumanBytes(plan.file_bytes),
      LayerBitsPerWeight(plan.manifest));
}

// "q4 (58 tensors, mean error 0.071), f32 (13 tensors)"
std::string Summary(const ConvertPlan& plan, const std::vector<TensorReport>& reports) {
  struct Sum {
    int count = 0;
    double error = 0;
  };
  std::map<std::string, Sum> by_type;
  for (size_t i = 0; i < reports.size(); ++i) {
    const char* carried = plan.tensors[i].carried ? " carried over bit for bit" : "";
    Sum& sum = by_type[absl::StrCat(TypeName(plan.manifest.tensors(static_cast<int>(i))), carried)];
    ++sum.count;
    sum.error += reports[i].relative_rms_error;
  }
  std::vector<std::string> parts;
  for (const auto& [type, sum] : by_type) {
    parts.push_back(absl::StrFormat("%s: %d tensors, mean relative RMS error %.4f", type, sum.count,
                                    sum.error / sum.count));
  }
  return absl::StrJoin(parts, "; ");
}

}  // namespace

int ConvertCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {"convert",
                          "SRC DST.quire",
                          "turn a PyTorch, safetensors or GGUF checkpoint (a file, or a Hugging "
                          "Face or Meta folder) into "
                          "one .quire file.",
                          "quire convert SmolLM2-135M-Instruct/ smollm2.quire",
                          1,
                          2};
  ConvertOptions options;
  std::string calibration;
  ByteSize memory_budget{int64_t{512} << 20};
  int64_t threads = DefaultThreads();
  bool force = false, dry_run = false, json = false;
  const std::vector<Flag> flags = {
      {"--type", &options.type,
       "q4, q4_hq, q4_0, q8, f16, bf16, f32, or source (each tensor keeps its own); without it q4, "
       "or source where the checkpoint is in 4 bits that can be kept"},
      {"--target-bits",
       &options.target_bits,
       "bits per weight of the layers' matrices, each bit spent where it pays most (with q4 or "
       "q4_hq)",
       {kMinTargetBits, kMaxTargetBits}},
      {"--config", &options.config_file,
       "config.json or params.json, where it is not beside the checkpoint"},
      {"--tokenizer", &options.tokenizer,
       "tokenizer.json, tokenizer.model, a folder with one, or none"},
      {"--calibration", &calibration,
       "a file of quire calibrate: what it says of the inputs decides how weights are rounded"},
      {"--root", &options.root,
       "only tensors under this name, where a checkpoint holds several models"},
      {"--memory-budget", &memory_budget, "most anonymous memory to use, from 8MiB",
       kMemoryBudgetRange},
      {"--threads", &threads, "threads", kThreadsRange},
      {"--force", &force, "replace DST.quire if it exists, once the new file is whole"},
      {"--dry-run", &dry_run, "print the plan and write nothing (DST.quire may be left out)"},
      {"--json", &json, "print the result as one JSON object"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, flags, args, &positional, &exit_code)) return exit_code;
  if (positional.size() < 2 && !dry_run) return UsageError(kVerb, "wants SRC and DST.quire");
  if (absl::Status known = ConversionScheme(options).status(); !known.ok())
    return UsageError(kVerb, known.message());
  options.source = positional[0];
  SandboxPaths paths = CheckpointPaths(options.source);
  for (const std::string& file : {options.config_file, options.tokenizer, calibration}) {
    if (!file.empty() && file != "none") AllowReading(file, &paths);
  }
  if (positional.size() > 1) paths.create.push_back(FolderOf(positional[1]));
  EnterSandbox(paths);
  const int64_t start = MonotonicNanoseconds();
  PeakAnonymousMemory peak_anonymous;
  absl::StatusOr<ConvertPlan> plan = PlanConversion(options);
  if (!plan.ok()) return Report(plan.status());
  const absl::Status fits =
      CheckTargetBits(options.target_bits, LayerBitsPerWeight(plan->manifest), options.source);
  if (!fits.ok()) return Report(fits);
  if (dry_run && !json) {
    PrintPlan(*plan);
    return kExitOk;
  }
  std::vector<TensorReport> reports;
  if (!dry_run) {
    std::vector<std::string> inputs = {options.source, options.config_file, options.tokenizer,
                                       calibration};
    for (const auto& [name, bytes] : plan->source->files())
      inputs.push_back(FolderOf(options.source) + name);
    for (const std::string& input : inputs) {
      absl::Status status = CheckNotSameFile(input, positional[1]);
      if (!status.ok()) return Report(status);
    }
    const absl::StatusOr<EncodeNamed> encode = OpenEncoder(calibration, plan->manifest.config());
    if (!encode.ok()) return Report(encode.status());
    ThreadPool pool(static_cast<int>(threads));
    int64_t total = 0;
    for (const TensorPlan& tensor : plan->tensors)
      total += plan->source->tensors()[tensor.tensor.source].bytes();
    Progress progress("convert", total);
    absl::StatusOr<std::vector<TensorReport>> converted = Convert(
        *plan, positional[1], force, memory_budget.bytes, pool,
        [&](int64_t done) { progress.Update(done); }, *encode);
    if (!converted.ok()) return Report(converted.status());
    reports = *std::move(converted);
  }
  const double seconds = (MonotonicNanoseconds() - start) * 1e-9;
  const ProcessMemory memory = ReadProcessMemory();
  if (json) {
    nlohmann::ordered_json object = {{"tensors", nlohmann::ordered_json::array()},
                                     {"left_out", nlohmann::ordered_json::array()},
                                     {"source_bytes", plan->source_bytes},
                                     {"file_bytes", plan->file_bytes},
                                     {"bits_per_weight", LayerBitsPerWeight(plan->manifest)},
                                     {"seconds", seconds},
                                     {"peak_rss_bytes", memory.peak_rss},
                                     {"peak_rss_anon_bytes", peak_anonymous.bytes()}};
    for (size_t i = 0; i < plan->tensors.size(); ++i) {
      const pb::TensorEntry& entry = plan->manifest.tensors(static_cast<int>(i));
      const SourceTensor& from = plan->source->tensors()[plan->tensors[i].tensor.source];
      nlohmann::ordered_json tensor = {{"name", entry.name()},
                                       {"source", from.name},
                                       {"source_dtype", Info(from.dtype).name},
                                       {"type", TypeName(entry)},
                                       {"bytes", entry.bytes()},
                                       {"carried_over", plan->tensors[i].carried}};
      if (!dry_run) tensor["relative_rms_error"] = reports[i].relative_rms_error;
      object["tensors"].push_back(std::move(tensor));
    }
    for (const auto& [name, why] : plan->left_out)
      object["left_out"].push_back({{"name", name}, {"why", why}});
    std::cout << object.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
    return kExitOk;
  }
  std::cout << absl::StreamFormat(
      "%s: %s from %s in %.1f s; %.2f bits per weight in the layers' matrices; at most %s of "
      "anonymous memory\n  %s\n",
      positional[1], HumanBytes(plan->file_bytes), HumanBytes(plan->source_bytes), seconds,
      LayerBitsPerWeight(plan->manifest), HumanBytes(peak_anonymous.bytes()),
      Summary(*plan, reports));
  return kExitOk;
}

}  // namespace quire
