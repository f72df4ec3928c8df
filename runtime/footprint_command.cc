#include "runtime/footprint_command.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/command_line.h"
#include "format/file.h"
#include "format/new_file.h"
#include "runtime/footprint/measure.h"
#include "runtime/footprint/report.h"

namespace quire {
namespace {

// Before anything is measured: an existing file, the model's own above all, is not written over.
absl::Status CheckNew(const std::string& path, bool force, const std::string& model) {
  if (absl::Status status = CheckNotSameFile(model, path); !status.ok()) return status;
  if (!force && access(path.c_str(), F_OK) == 0) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": exists; --force replaces it"));
  }
  return absl::OkStatus();
}

absl::Status WriteText(const std::string& path, bool force, const std::string& text) {
  absl::StatusOr<std::unique_ptr<NewFile>> file = NewFile::Create(path, force);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->WriteAt(0, text.data(), static_cast<int64_t>(text.size()));
  if (status.ok()) status = (*file)->Sync();
  return status.ok() ? (*file)->GiveName() : status;
}

}  // namespace

int FootprintCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {"footprint",
                          "MODEL",
                          "run a few tokens and account for every byte of memory.",
                          "quire footprint model.quire --html footprint.html",
                          1,
                          1};
  int64_t tokens = 32;
  SessionOptions options;
  bool json = false, force = false;
  std::string html;
  const Flag table[] = {
      {"--tokens", &tokens, "tokens to generate; at most what the context holds", {1}},
      {"--ctx", &options.ctx, "context in tokens (without: 512, or what the model has)", {1}},
      {"--threads", &options.threads, "threads (without: the CPUs there are)", kThreadsRange},
      {"--resident", &options.resident, kResidentHelp},
      {"--html", &html, "write a page with a map of the file to this file"},
      {"--force", &force, "replace that file if it exists"},
      {"--json", &json, "print one JSON object"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, table, args, &positional, &exit_code)) return exit_code;
  if (!html.empty()) {
    if (absl::Status status = CheckNew(html, force, positional[0]); !status.ok())
      return Report(status);
  }
  const absl::StatusOr<Footprint> footprint = MeasureFootprint(positional[0], options, tokens);
  if (!footprint.ok()) return Report(footprint.status());
  std::cout << (json ? JsonReport(*footprint) : TextReport(*footprint));
  if (footprint->tokens < tokens) {
    std::cerr << "quire: " << footprint->tokens << " tokens, not " << tokens << ": the context of "
              << footprint->ctx << " is full (--ctx makes it longer)\n";
  }
  if (!std::cout.flush()) return Report(absl::UnknownError("standard output cannot be written"));
  return html.empty() ? kExitOk : Report(WriteText(html, force, HtmlReport(*footprint)));
}

}  // namespace quire
