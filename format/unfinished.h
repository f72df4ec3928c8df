// What a process must not leave behind, removed also where no destructor runs.
#ifndef QUIRE_FORMAT_UNFINISHED_H_
#define QUIRE_FORMAT_UNFINISHED_H_

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

  // Before there is such a file. In place of what was set before; of more than a few at a time the
  // rest is not remembered.
  void Set(const std::string& path);
  // It is about to be given its final name, and is not removed any more. Waits for the end where
  // its removal has begun. Clear, or Set, follows soon.
  void Keep();
  void Clear();

 private:
  int slot_ = -1;
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
