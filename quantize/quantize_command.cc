#include "quantize/quantize_command.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "format/command_line.h"
#include "format/file.h"
#include "format/model_file.h"
#include "format/process_memory.h"
#include "format/sigbus_guard.h"
#include "format/writer.h"
#include "quantize/calibrated_encoder.h"
#include "quantize/calibrated_file.h"
#include "quantize/layer_inputs.h"
#include "quantize/layer_progress.h"
#include "quantize/quantize_file.h"
#include "quantize/scheme.h"
#include "runtime/session.h"

namespace quire {
namespace {

struct Options {
  std::string source, output, type, text_file, calibration;
  std::vector<std::string> keep;
  ByteSize memory_budget{int64_t{512} << 20};
  int64_t threads = DefaultThreads();
  double target_bits = 0;
  bool calibrate = false, force = false, json = false;
};

const char* TypeName(int encoding) { return Info(static_cast<Encoding>(encoding)).name; }

void PrintJson(const ModelFile& source, const ModelFile& output,
               const std::vector<QuantizedTensor>& tensors, double seconds,
               int64_t peak_rss_anon_bytes) {
  nlohmann::ordered_json object = {{"tensors", nlohmann::ordered_json::array()},
                                   {"source_bytes", source.mapping().size()},
                                   {"file_bytes", output.mapping().size()},
                                   {"bits_per_weight", LayerBitsPerWeight(output.manifest())},
                                   {"seconds", seconds},
                                   {"peak_rss_bytes", ReadProcessMemory().peak_rss},
                                   {"peak_rss_anon_bytes", peak_rss_anon_bytes}};
  for (size_t i = 0; i < tensors.size(); ++i) {
    const pb::TensorEntry& entry = output.manifest().tensors(static_cast<int>(i));
    object["tensors"].push_back(
        {{"name", entry.name()},
         {"source_type", TypeName(source.manifest().tensors(static_cast<int>(i)).encoding())},
         {"type", TypeName(entry.encoding())},
         {"bytes", entry.bytes()},
         {"carried_over", tensors[i].carried},
         {"relative_rms_error", tensors[i].relative_rms_error}});
  }
  std::cout << object.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
}

void PrintText(const ModelFile& source, const ModelFile& output,
               const std::vector<QuantizedTensor>& tensors, double seconds,
               int64_t peak_rss_anon_bytes) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const pb::TensorEntry& from = source.manifest().tensors(static_cast<int>(i));
    const pb::TensorEntry& to = output.manifest().tensors(static_cast<int>(i));
    const std::string result = tensors[i].carried ? "carried over"
                                                  : absl::StrFormat("relative RMS error %.5f",
                                                                    tensors[i].relative_rms_error);
    std::cout << absl::StreamFormat("%-24s %-14s %-4s -> %-4s %11d bytes  %s\n", to.name(),
                                    absl::StrJoin(to.shape(), " x "), TypeName(from.encoding()),
                                    TypeName(to.encoding()), to.bytes(), result);
  }
  std::cout << absl::StreamFormat(
      "%s: %s from %s in %.1f s; %.2f bits per weight in the layers' matrices; at most %s of "
      "anonymous memory\n",
      output.path(), HumanBytes(output.mapping().size()), HumanBytes(source.mapping().size()),
      seconds, LayerBitsPerWeight(output.manifest()), HumanBytes(peak_rss_anon_bytes));
}

absl::StatusOr<std::vector<QuantizedTensor>> QuantizeCalibrated(const Options& options,
                                                                Session& session,
                                                                const pb::Manifest& plan) {
  const absl::StatusOr<std::vector<int32_t>> tokens =
      CalibrationTokens(session, options.text_file, options.memory_budget.bytes);
  if (!tokens.ok()) return tokens.status();
  LayerProgress progress("quantize", plan.config().n_layers());
  return QuantizeFileCalibrated(session, plan, *tokens,
                                {options.output, options.force, options.memory_budget.bytes},
                                [&](double part) { progress.Update(part); });
}

absl::StatusOr<std::vector<QuantizedTensor>> QuantizeDirectly(const Options& options,
                                                              const ModelFile& source,
                                                              const pb::Manifest& plan) {
  const absl::StatusOr<EncodeNamed> encode = OpenEncoder(options.calibration, source.config());
  if (!encode.ok()) return encode.status();
  ThreadPool pool(static_cast<int>(options.threads));
  Progress progress("quantize", source.mapping().size());
  return QuantizeFile(
      source, plan, options.output, options.force, options.memory_budget.bytes, pool,
      [&](int64_t done_bytes) { progress.Update(done_bytes); }, *encode);
}

absl::Status Quantize(const Options& options) {
  const int64_t start = MonotonicNanoseconds();
  PeakAnonymousMemory peak_anonymous;
  absl::StatusOr<Scheme> scheme = SchemeFor(options.type, options.target_bits);
  if (!scheme.ok()) return scheme.status();
  std::vector<KeepRule> rules;
  for (const std::string& text : options.keep) {
    absl::StatusOr<KeepRule> rule = ParseKeepRule(text);
    if (!rule.ok()) return rule.status();
    rules.push_back(*std::move(rule));
  }
  // Opened once, so that the plan is of the very file that is quantized.
  std::unique_ptr<Session> session;
  std::optional<ModelFile> file;
  if (options.calibrate) {
    SessionOptions session_options;
    session_options.threads = options.threads;
    absl::StatusOr<std::unique_ptr<Session>> opened =
        Session::Open(options.source, session_options);
    if (!opened.ok()) return opened.status();
    session = *std::move(opened);
  } else {
    absl::StatusOr<ModelFile> opened = ModelFile::Open(options.source);
    if (!opened.ok()) return opened.status();
    file = *std::move(opened);
  }
  const ModelFile& source = options.calibrate ? session->model().file() : *file;
  ExplainSigbus(options.source);
  absl::Status status = CheckNotSameFile(options.source, options.output);
  if (!status.ok()) return status;
  absl::StatusOr<pb::Manifest> plan = PlanQuantization(source, *scheme, rules);
  if (!plan.ok()) return plan.status();
  status = CheckTargetBits(options.target_bits, LayerBitsPerWeight(*plan), options.source,
                           rules.empty() ? "" : " with what --keep says");
  if (!status.ok()) return status;
  const absl::StatusOr<std::vector<QuantizedTensor>> tensors =
      options.calibrate ? QuantizeCalibrated(options, *session, *plan)
                        : QuantizeDirectly(options, source, *plan);
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<ModelFile> output = ModelFile::Open(options.output);
  if (!output.ok()) return output.status();
  const double seconds = (MonotonicNanoseconds() - start) * 1e-9;
  (options.json ? PrintJson : PrintText)(source, *output, *tensors, seconds,
                                         peak_anonymous.bytes());
  return absl::OkStatus();
}

}  // namespace

int QuantizeCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {"quantize",
                          "SRC.quire DST.quire --type TYPE",
                          "encode a .quire file's weights in fewer bits.",
                          "quire quantize model-f16.quire model-q4.quire --type q4",
                          2,
                          2};
  Options options;
  const std::string type_help = SchemeNames();
  const std::vector<Flag> flags = {
      {"--type", &options.type, type_help.c_str()},
      {"--target-bits",
       &options.target_bits,
       "bits per weight of the layers' matrices, each bit spent where it pays most (with q4, which "
       "is then the default, or q4_hq)",
       {kMinTargetBits, kMaxTargetBits}},
      {"--keep", &options.keep,
       "PATTERN=TYPE: another type for the matrices of these names (\"layers.*.w_down=q8\"); may "
       "be repeated, the last that matches holds"},
      {"--calibrate", &options.calibrate,
       "run a text through the model and round each weight so that the layers' outputs stay as "
       "close as they can: slower, better; goes on where a killed run of the same command stopped"},
      {"--calibration", &options.calibration,
       "a file of quire calibrate: what it says of the inputs decides how weights are rounded; one "
       "pass over the file"},
      {"-f", &options.text_file, "the text for --calibrate (without: a built-in one)"},
      {"--memory-budget", &options.memory_budget, "most anonymous memory to use, from 8MiB",
       kMemoryBudgetRange},
      {"--threads", &options.threads, "threads", kThreadsRange},
      {"--force", &options.force, "replace DST.quire if it exists, once the new file is whole"},
      {"--json", &options.json, "print the result as one JSON object"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, flags, args, &positional, &exit_code)) return exit_code;
  if (options.type.empty() && options.target_bits != 0) options.type = "q4";
  if (options.type.empty())
    return UsageError(kVerb, absl::StrCat("wants --type, one of ", SchemeNames()));
  if (absl::Status known = SchemeFor(options.type, options.target_bits).status(); !known.ok())
    return UsageError(kVerb, known.message());
  for (const std::string& rule : options.keep) {
    if (absl::Status parsed = ParseKeepRule(rule).status(); !parsed.ok())
      return UsageError(kVerb, parsed.message());
  }
  if (!options.text_file.empty() && !options.calibrate)
    return UsageError(kVerb, "-f is the text for --calibrate");
  if (!options.calibration.empty() && options.calibrate)
    return UsageError(kVerb, "--calibrate and --calibration exclude each other");
  options.source = positional[0];
  options.output = positional[1];
  return Report(Quantize(options));
}

}  // namespace quire
