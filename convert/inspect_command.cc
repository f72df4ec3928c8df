#include "convert/inspect_command.h"

#include <cstring>
#include <iostream>

#include "convert/inspect_checkpoint.h"
#include "convert/sandbox.h"
#include "format/command_line.h"
#include "format/file.h"
#include "format/header.h"
#include "format/inspect.h"

namespace quire {
namespace {

bool IsModelFile(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  uint8_t head[sizeof kMagic];
  return file.ok() && file->ReadAt(0, absl::MakeSpan(head)).ok() &&
         std::memcmp(head, kMagic, sizeof kMagic) == 0;
}

}  // namespace

int InspectCommand(absl::Span<char* const> args) {
  constexpr Verb kVerb = {
      "inspect",
      "FILE",
      "list what a .quire file or any checkpoint holds, without loading its weights or running "
      "anything in it.",
      "quire inspect pytorch_model.bin --tensors",
      1,
      1};
  bool tensors = false, checksums = false, json = false;
  const std::vector<Flag> flags = {
      {"--tensors", &tensors, "list every tensor"},
      {"--checksums", &checksums,
       "checkpoints: XXH3-64 of each tensor's elements, in logical order (reads them)"},
      {"--json", &json, "print one JSON object"},
  };
  std::vector<std::string> positional;
  int exit_code;
  if (!ParseCommandLine(kVerb, flags, args, &positional, &exit_code)) return exit_code;
  EnterSandbox(CheckpointPaths(positional[0]));
  if (IsModelFile(positional[0]))
    return Report(InspectModelFile(positional[0], tensors, json, std::cout));
  return InspectCheckpoint(positional[0], tensors, checksums, json);
}

}  // namespace quire
