#include "runtime/read_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace quire {
namespace {

// A huge page: what one entry of the page tables covers where the page cache holds it in one piece.
constexpr uintptr_t kPieceBytes = uintptr_t{2} << 20;

void BringIn(absl::Span<const uint8_t> memory) {
#ifdef MADV_POPULATE_READ
  static const uintptr_t page_bytes = sysconf(_SC_PAGESIZE);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory.data()) / page_bytes * page_bytes;
  const uintptr_t end = reinterpret_cast<uintptr_t>(memory.data() + memory.size());
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
#else
  (void)memory;
#endif
}

}  // namespace

ReadAhead::ReadAhead(const std::vector<Stretch>& stretches) : pending_(stretches.size()) {
  for (size_t s = 0; s < stretches.size(); ++s) {
    const Stretch& stretch = stretches[s];
    for (size_t at = 0; at < stretch.size();) {
      const uintptr_t address = reinterpret_cast<uintptr_t>(stretch.data() + at);
      const size_t n = std::min<size_t>(kPieceBytes - address % kPieceBytes, stretch.size() - at);
      pieces_.push_back({stretch.subspan(at, n), static_cast<int64_t>(s)});
      ++pending_[s];
      at += n;
    }
  }
  try {  // std::thread reports refusal only by exception
    thread_ = std::thread([this] {
      while (BringNext()) {
      }
    });
  } catch (const std::system_error&) {
  }
}

ReadAhead::~ReadAhead() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    next_ = pieces_.size();
  }
  if (thread_.joinable()) thread_.join();
}

bool ReadAhead::BringNext() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (next_ == pieces_.size()) return false;
  const Piece& piece = pieces_[next_++];
  lock.unlock();
  BringIn(piece.memory);
  lock.lock();
  if (--pending_[piece.stretch] == 0) changed_.notify_one();
  return true;
}

void ReadAhead::WaitFor(int64_t stretch) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (pending_[stretch] > 0 && next_ < pieces_.size() && pieces_[next_].stretch <= stretch) {
    lock.unlock();
    BringNext();
    lock.lock();
  }
  changed_.wait(lock, [&] { return pending_[stretch] == 0; });
}

}  // namespace quire
