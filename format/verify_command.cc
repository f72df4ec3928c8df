#include "format/verify_command.h"

#include <iostream>

#include "absl/strings/str_format.h"
#include "format/command_line.h"
#include "format/model_file.h"

namespace quire {

int VerifyCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {"verify",
                          "MODEL",
                          "check every byte of a .quire file against its checksums.",
                          "quire verify model.quire",
                          1,
                          1};
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, {}, args, &positional, &exit_code)) return exit_code;
  absl::StatusOr<ModelFile> model = ModelFile::Open(positional[0]);
  if (!model.ok()) return Report(model.status());
  const int64_t start = MonotonicNanoseconds();
  absl::Status status;
  {
    Progress progress("verify", model->mapping().size());
    status = model->Verify([&](int64_t done) { progress.Update(done); });
  }
  if (!status.ok()) return Report(status);
  const double seconds = (MonotonicNanoseconds() - start) * 1e-9;
  std::cout << absl::StreamFormat(
      "%s: ok, %d tensors, %s checked in %.2f s (%s/s)\n", model->path(), model->tensors().size(),
      HumanBytes(model->mapping().size()), seconds,
      HumanBytes(static_cast<int64_t>(model->mapping().size() / seconds)));
  return kExitOk;
}

}  // namespace quire
