// Untrusted bytes are parsed by a process that can no longer do harm: no network, no other program,
// no other file.
#ifndef QUIRE_CONVERT_SANDBOX_H_
#define QUIRE_CONVERT_SANDBOX_H_

#include <string>
#include <vector>

namespace quire {

struct SandboxPaths {
  std::vector<std::string> read;  // files or folders with all below them; absent ones are ignored
  std::vector<std::string>
      create;  // folders: files may be made, written, read, renamed and removed there
};

// What this kernel offers, for --version.
struct SandboxSupport {
  int landlock_abi = 0;  // 0: no file rules
  bool seccomp = false;
};
SandboxSupport ProbeSandbox();

// Takes away from this process, for good: opening any other file (Landlock), sockets, starting
// programs, tracing, mounting, kernel modules and the like (seccomp; such calls fail with EPERM).
// What the kernel does not have is left out silently: the parsers are safe without it, this is the
// second wall. Call it before other threads start.
SandboxSupport EnterSandbox(const SandboxPaths& paths);

// Adds a file and the files beside it, or a folder, and the files that symbolic links there point
// to (a Hugging Face cache).
void AllowReading(const std::string& path, SandboxPaths* paths);

// What reading a checkpoint needs: its file and the files beside it, or its folder; what its
// symbolic links point to (a Hugging Face cache); for Meta's folders the tokenizer above; this
// process's own numbers in /proc.
SandboxPaths CheckpointPaths(const std::string& source);

}  // namespace quire

#endif  // QUIRE_CONVERT_SANDBOX_H_
