// One binary, `quire VERB`: a table of verbs, nothing else.
#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <iostream>
#include <new>

#include "absl/types/span.h"
#include "convert/convert_command.h"
#include "convert/export/export_command.h"
#include "convert/inspect_command.h"
#include "convert/sandbox.h"
#include "format/command_line.h"
#include "format/unfinished.h"
#include "format/verify_command.h"
#include "format/version.h"
#include "quantize/calibrate_command.h"
#include "quantize/quantize_command.h"
#include "runtime/bench_command.h"
#include "runtime/footprint_command.h"
#include "runtime/kernels/kernels.h"
#include "runtime/perplexity_command.h"
#include "runtime/run_command.h"

namespace {

using Command = int (*)(absl::Span<char* const> args);

constexpr struct {
  const char* name;
  Command command;
  const char* sentence;
} kVerbs[] = {
    {"convert", quire::ConvertCommand,
     "turn a PyTorch, safetensors or GGUF checkpoint into one .quire file"},
    {"quantize", quire::QuantizeCommand, "encode a .quire file's weights in fewer bits"},
    {"calibrate", quire::CalibrateCommand, "measure on a text what a model's matrices multiply"},
    {"export", quire::ExportCommand, "write a model for llama.cpp, transformers or vLLM"},
    {"run", quire::RunCommand, "generate text, straight from the mapped file"},
    {"bench", quire::BenchCommand, "measure load time, memory and speed"},
    {"perplexity", quire::PerplexityCommand, "measure how well a model predicts a text"},
    {"footprint", quire::FootprintCommand, "run a few tokens and account for every byte of memory"},
    {"inspect", quire::InspectCommand,
     "list what a .quire file or a checkpoint holds, without loading it"},
    {"verify", quire::VerifyCommand, "check every byte of a .quire file against its checksums"},
};

constexpr char kOutOfMemory[] = "quire: out of memory: the system refused an allocation\n";

// Where memory is refused, what would hand back a status would need memory itself.
[[noreturn]] void EndOutOfMemory() {
  static std::atomic<bool> ending{false};
  while (ending.exchange(true)) pause();  // another thread says it
  quire::RemoveUnfinished();
  const ssize_t written = write(STDERR_FILENO, kOutOfMemory, sizeof kOutOfMemory - 1);
  _exit(written < 0 ? quire::kExitFailure : quire::kExitFailure);
}
// Before the constructors of static objects, which allocate too.
__attribute__((constructor(101))) void SetNewHandler() { std::set_new_handler(EndOutOfMemory); }

void EndBySignal(int signal_number) {
  quire::RemoveUnfinished();
  raise(signal_number);  // the default action, since the handler is gone
}

void PrepareProcess() {
  google::protobuf::SetLogHandler(nullptr);  // a refused message is one line, ours
  // A file that is opened must not become standard output: these stand for what is closed, and fail
  // like it.
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
  signal(SIGXFSZ, SIG_IGN);  // a write over the file size limit is an error of that write
  for (const int end : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    if (sigaction(end, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action.sa_handler = EndBySignal;
    action.sa_flags = SA_RESETHAND;
    sigaction(end, &action, nullptr);
  }
}

void PrintUsage(std::ostream& out) {
  out << "quire: 4-bit models that run from the page cache.\n\n"
         "  quire convert checkpoint/ model.quire && quire run model.quire -p \"Once upon a "
         "time\"\n\n"
         "usage: quire VERB ... (each has --help)\n";
  for (const auto& verb : kVerbs) {
    out << "  " << verb.name << std::string(12 - std::strlen(verb.name), ' ') << verb.sentence
        << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  PrepareProcess();
  if (argc < 2) {
    PrintUsage(std::cerr);
    return quire::kExitUsage;
  }
  const absl::string_view name = argv[1];
  for (const auto& verb : kVerbs) {
    if (name != verb.name) continue;
    const int code = verb.command(absl::MakeConstSpan(argv + 2, argc - 2));
    if (code == quire::kExitOk && !std::cout.flush()) {
      std::cerr << "quire " << name << ": standard output cannot be written\n";
      return quire::kExitFailure;
    }
    return code;
  }
  if (name == "--help" || name == "-h" || name == "help") {
    PrintUsage(std::cout);
    return quire::kExitOk;
  }
  if (name == "--version") {
    const quire::KernelTable* kernels = quire::ChooseKernels();
    const quire::SandboxSupport sandbox = quire::ProbeSandbox();
    std::cout << "quire " << quire::kVersion << ", kernels "
              << (kernels != nullptr ? kernels->name : "unknown (QUIRE_KERNELS)")
              << ", sandbox of convert and inspect: "
              << (sandbox.landlock_abi >= 2 ? "files (Landlock)" : "no file rules on this kernel")
              << ", "
              << (sandbox.seccomp ? "system calls (seccomp)"
                                  : "no system call rules on this kernel")
              << "\n";
    return quire::kExitOk;
  }
  std::cerr << "quire: unknown verb \"" << name << "\" (see quire --help)\n";
  return quire::kExitUsage;
}
