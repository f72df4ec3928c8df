// Another process of this program, started and talked to through pipes.
#ifndef QUIRE_RUNTIME_CHILD_PROCESS_H_
#define QUIRE_RUNTIME_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quire {

// Not thread-safe. One that is destroyed before Wait is killed.
class ChildProcess {
 public:
  // Runs this executable with `args` (its name left out). Where `cgroup` is not empty, the process
  // joins that cgroup before the program is loaded. stderr is shared.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& args,
                                                             const std::string& cgroup);
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // The next line of its stdout, without the newline. What Wait returns where it ended before.
  absl::StatusOr<std::string> ReadLine();
  // Closes its stdin and waits for its end. Aborted where it has failed and said why on stderr, as
  // every verb does; FailedPrecondition where it has ended in another way that is not success.
  absl::Status Wait();

 private:
  ChildProcess(pid_t pid, int in, int out) : pid_(pid), in_(in), out_(out) {}
  pid_t pid_;
  int in_, out_;
  std::string buffered_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_CHILD_PROCESS_H_
