// What a process must not leave behind, removed also where no destructor runs.
#ifndef QUIRE_FORMAT_UNFINISHED_H_
#define QUIRE_FORMAT_UNFINISHED_H_

#include <signal.h>

#include <string>

#include "absl/functional/function_ref.h"

namespace quire {

// Names a file, or a folder of files, for RemoveUnfinished. Not thread-safe.
class Unfinished {
 public:
  Unfinished() = default;
  ~Unfinished() { Clear(); }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  // While it is made, before it is known whose it is, or while it is given its final name: what
  // would end the process waits for Set or Clear, which follow soon and in the same thread, whose
  // signals are held back until then. Waits for the end where that has begun.
  void Hold();
  // In place of what was set before; of more than a few at a time the rest is not remembered.
  void Set(const std::string& path);
  void Clear();

 private:
  void Release(int state);

  int slot_ = -1;
  bool held_ = false;
  sigset_t signals_;  // what was held back before Hold
};

// Removes what is set; whoever calls Set from now on waits for the end. Async-signal-safe, and
// allocates nothing: for what ends the process at once.
void RemoveUnfinished();

// Calls `visit` with each name in an open folder, false where it cannot be read; deletes each file
// in it. As above.
bool ForEachNameIn(int folder, absl::FunctionRef<void(const char* name)> visit);
void RemoveFilesIn(int folder);

// Locks an open file or folder; false where another process holds the lock. Where the file system
// has no locks, nobody holds one.
bool LockForThisProcess(int fd);

}  // namespace quire

#endif  // QUIRE_FORMAT_UNFINISHED_H_
