#include "format/unfinished.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace quire {
namespace {

// A signal may come at any moment: a slot that is held is one thread's own.
struct Slot {
  enum { kFree, kHeld, kSet };
  std::atomic<int> state{kFree};
  char path[4096];  // a longer name than a path may have is no file
};
Slot slots[8];

std::atomic<bool> ending{false};

constexpr int kAttempts = 20;
constexpr int kHeldAttempts = 1000;
void WaitAMoment() {
  const timespec millisecond = {0, 1000000};
  nanosleep(&millisecond, nullptr);
}

[[noreturn]] void WaitForTheEnd() {
  while (true) pause();
}

// Other threads go on meanwhile: what is not there yet may be about to be made, and a folder may
// get another file.
void Remove(const char* path) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (unlink(path) == 0) return;
    if (errno == EISDIR) {
      const int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (folder >= 0) RemoveFilesIn(folder);
      if (folder >= 0) close(folder);
      if (rmdir(path) == 0) return;
    } else if (errno != ENOENT) {
      return;
    }
    WaitAMoment();
  }
}

}  // namespace

void Unfinished::Hold() {
  if (held_) return;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &signals_);
  held_ = true;
  if (slot_ >= 0) {
    int set = Slot::kSet;
    if (!slots[slot_].state.compare_exchange_strong(set, Slot::kHeld)) WaitForTheEnd();
    return;
  }
  for (Slot& slot : slots) {
    int free = Slot::kFree;
    if (!slot.state.compare_exchange_strong(free, Slot::kHeld)) continue;
    slot_ = static_cast<int>(&slot - slots);
    break;
  }
  if (ending) {  // perhaps it has passed the slot
    if (slot_ >= 0) slots[slot_].state = Slot::kFree;
    WaitForTheEnd();
  }
}

void Unfinished::Release(int state) {
  if (slot_ >= 0) slots[slot_].state = state;
  if (!held_) return;
  held_ = false;
  pthread_sigmask(SIG_SETMASK, &signals_, nullptr);
}

void Unfinished::Set(const std::string& path) {
  if (path.size() >= sizeof Slot::path) return Clear();
  Hold();
  if (slot_ >= 0) std::memcpy(slots[slot_].path, path.c_str(), path.size() + 1);
  Release(Slot::kSet);
  if (ending) WaitForTheEnd();
}

void Unfinished::Clear() {
  Release(Slot::kFree);
  slot_ = -1;
}

void RemoveUnfinished() {
  ending = true;
  for (Slot& slot : slots) {
    // What another thread holds it lets go of; this one, where it ran out of memory, cannot.
    for (int i = 0; i < kHeldAttempts && slot.state == Slot::kHeld; ++i) WaitAMoment();
    int set = Slot::kSet;
    if (slot.state.compare_exchange_strong(set, Slot::kHeld)) Remove(slot.path);
  }
}

bool ForEachNameIn(int folder, absl::FunctionRef<void(const char* name)> visit) {
  if (lseek(folder, 0, SEEK_SET) != 0) return false;
  alignas(dirent64) char entries[4096];
  while (true) {
    const ssize_t bytes = getdents64(folder, entries, sizeof entries);
    if (bytes <= 0) return bytes == 0;
    for (ssize_t at = 0; at < bytes;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      at += entry->d_reclen;
      const bool self = std::strcmp(entry->d_name, ".") == 0;
      if (!self && std::strcmp(entry->d_name, "..") != 0) visit(entry->d_name);
    }
  }
}

void RemoveFilesIn(int folder) {
  ForEachNameIn(folder, [&](const char* name) { unlinkat(folder, name, 0); });
}

bool LockForThisProcess(int fd) {
  return TEMP_FAILURE_RETRY(flock(fd, LOCK_EX | LOCK_NB)) == 0 || errno != EWOULDBLOCK;
}

}  // namespace quire
