#include "runtime/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "format/command_line.h"
#include "format/file.h"

namespace quire {

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::vector<std::string>& args, const std::string& cgroup) {
  // All that the child needs is made before it is: after fork it may only make system calls.
  std::vector<char*> argv = {const_cast<char*>("quire")};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  const std::string procs = cgroup.empty() ? "" : cgroup + "/cgroup.procs";

  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  if (pipe2(out, O_CLOEXEC) != 0) {
    const int error = errno;
    close(in[0]);
    close(in[1]);
    return ErrnoStatus(error, "pipe");
  }
  const pid_t pid = fork();
  if (pid == 0) {
    if (!procs.empty()) {
      const int fd = open(procs.c_str(), O_WRONLY | O_CLOEXEC);
      if (fd < 0 || write(fd, "0", 1) != 1) _exit(126);
    }
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    execv("/proc/self/exe", argv.data());
    _exit(127);
  }
  const int error = errno;
  close(in[0]);
  close(out[1]);
  std::unique_ptr<ChildProcess> self(new ChildProcess(pid, in[1], out[0]));
  if (pid < 0) return ErrnoStatus(error, "starting a process");
  return self;
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (in_ >= 0) close(in_);
  close(out_);
}

absl::StatusOr<std::string> ChildProcess::ReadLine() {
  while (true) {
    const size_t end = buffered_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffered_.substr(0, end);
      buffered_.erase(0, end + 1);
      return line;
    }
    char bytes[4096];
    const ssize_t n = read(out_, bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      absl::Status status = Wait();
      return status.ok() ? absl::InternalError("a measured process ended without a result")
                         : status;
    }
    buffered_.append(bytes, n);
  }
}

absl::Status ChildProcess::Wait() {
  if (in_ >= 0) close(in_);
  in_ = -1;
  int state = 0;
  while (waitpid(pid_, &state, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  if (WIFSIGNALED(state)) {
    return absl::FailedPreconditionError(
        absl::StrCat("a measured process was killed by signal ", WTERMSIG(state),
                     WTERMSIG(state) == SIGKILL ? " (out of memory?)" : ""));
  }
  if (WEXITSTATUS(state) == 126) {
    return absl::FailedPreconditionError("a measured process could not join its cgroup");
  }
  if (WEXITSTATUS(state) == 0) return absl::OkStatus();
  if (WEXITSTATUS(state) == kExitFailure) return absl::AbortedError("a measured process failed");
  return absl::FailedPreconditionError(
      absl::StrCat("a measured process failed with exit code ", WEXITSTATUS(state)));
}

}  // namespace quire
