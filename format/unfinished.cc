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
void WaitAMoment() {
  const timespec millisecond = {0, 1000000};
  nanosleep(&millisecond, nullptr);
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

void Unfinished::Set(const std::string& path) {
  Clear();
  if (path.size() >= sizeof Slot::path) return;
  for (Slot& slot : slots) {
    int free = Slot::kFree;
    if (!slot.state.compare_exchange_strong(free, Slot::kHeld)) continue;
    std::memcpy(slot.path, path.c_str(), path.size() + 1);
    slot.state = Slot::kSet;
    slot_ = static_cast<int>(&slot - slots);
    while (ending) pause();  // too late: the process ends
    return;
  }
}

void Unfinished::Keep() {
  int set = Slot::kSet;
  if (slot_ >= 0 && slots[slot_].state.compare_exchange_strong(set, Slot::kHeld)) return;
  while (ending) pause();
}

void Unfinished::Clear() {
  if (slot_ >= 0) slots[slot_].state = Slot::kFree;
  slot_ = -1;
}

void RemoveUnfinished() {
  ending = true;
  for (Slot& slot : slots) {
    // Another thread may be about to set it, or to give what it names its final name.
    for (int i = 0; i < kAttempts && slot.state == Slot::kHeld; ++i) WaitAMoment();
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
