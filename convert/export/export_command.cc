#include "convert/export/export_command.h"

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "convert/export/export.h"
#include "format/command_line.h"
#include "format/model_file.h"
#include "format/process_memory.h"

namespace quire {
namespace {

struct Options {
  std::string model, output, format;
  int64_t threads = DefaultThreads();
  bool force = false, json = false;
};

void PrintJson(const ExportReport& report, int64_t source_bytes, double seconds,
               int64_t peak_rss_anon_bytes) {
  nlohmann::ordered_json object = {{"tensors", nlohmann::ordered_json::array()},
                                   {"notes", report.notes},
                                   {"source_bytes", source_bytes},
                                   {"bytes", report.bytes},
                                   {"seconds", seconds},
                                   {"peak_rss_bytes", ReadProcessMemory().peak_rss},
                                   {"peak_rss_anon_bytes", peak_rss_anon_bytes}};
  for (const ExportedTensor& tensor : report.tensors) {
    object["tensors"].push_back({{"name", tensor.name},
                                 {"source_type", tensor.source_type},
                                 {"type", tensor.type},
                                 {"bytes", tensor.bytes},
                                 {"exact", tensor.exact},
                                 {"relative_rms_error", tensor.relative_rms_error}});
  }
  std::cout << object.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
}

void PrintText(const std::string& output, const ExportReport& report, int64_t source_bytes,
               double seconds, int64_t peak_rss_anon_bytes) {
  std::cout << absl::StreamFormat("%s: %s from %s in %.1f s; at most %s of anonymous memory\n",
                                  output, HumanBytes(report.bytes), HumanBytes(source_bytes),
                                  seconds, HumanBytes(peak_rss_anon_bytes));
  struct Sum {
    int count = 0;
    bool exact = true;
    double error = 0;
  };
  std::map<std::string, Sum> by_type;
  for (const ExportedTensor& tensor : report.tensors) {
    if (tensor.source_type.empty()) continue;
    Sum& sum = by_type[tensor.source_type + " -> " + tensor.type];
    ++sum.count;
    sum.exact &= tensor.exact;
    sum.error += tensor.relative_rms_error;
  }
  for (const auto& [type, sum] : by_type) {
    std::cout << absl::StreamFormat("  %s: %d tensors, ", type, sum.count);
    if (sum.exact) {
      std::cout << "exact\n";
    } else {
      std::cout << absl::StreamFormat("rounded, mean relative RMS error %.6f\n",
                                      sum.error / sum.count);
    }
  }
  for (const std::string& note : report.notes) std::cout << "  note: " << note << "\n";
}

absl::Status Run(const Options& options) {
  const int64_t start = MonotonicNanoseconds();
  PeakAnonymousMemory peak_anonymous;
  absl::StatusOr<ModelFile> model = ModelFile::Open(options.model);
  if (!model.ok()) return model.status();
  absl::StatusOr<ExportReport> report;
  {
    ThreadPool pool(static_cast<int>(options.threads));
    Progress progress("export", model->mapping().size());
    report = Export(*model, options.format, options.output, options.force, pool,
                    [&](int64_t done_bytes) { progress.Update(done_bytes); });
  }
  if (!report.ok()) return report.status();
  const double seconds = (MonotonicNanoseconds() - start) * 1e-9;
  if (options.json) {
    PrintJson(*report, model->mapping().size(), seconds, peak_anonymous.bytes());
  } else {
    PrintText(options.output, *report, model->mapping().size(), seconds, peak_anonymous.bytes());
  }
  return absl::OkStatus();
}

}  // namespace

int ExportCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {"export",
                          "MODEL.quire DST --format FORMAT",
                          "write a .quire file's model for other programs: a GGUF file, or a "
                          "Hugging Face folder.",
                          "quire export model.quire model.gguf --format gguf",
                          2,
                          2};
  Options options;
  const std::string formats = ExportFormats();
  const std::vector<Flag> flags = {
      {"--format", &options.format, formats.c_str()},
      {"--threads", &options.threads, "threads", kThreadsRange},
      {"--force", &options.force,
       "replace DST if it exists, once the new one is whole; a folder only where it holds nothing "
       "but such an export"},
      {"--json", &options.json, "print the result as one JSON object"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, flags, args, &positional, &exit_code)) return exit_code;
  if (options.format.empty()) {
    return UsageError(kVerb, absl::StrCat("wants --format, one of ", formats));
  }
  if (!IsExportFormat(options.format)) {
    return UsageError(kVerb,
                      absl::StrCat("unknown format \"", options.format, "\"; there are ", formats));
  }
  options.model = positional[0];
  options.output = positional[1];
  return Report(Run(options));
}

}  // namespace quire
