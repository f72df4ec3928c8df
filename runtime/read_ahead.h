// Brings stretches of a mapped file into memory in the order in which they are used, so that a
// first pass neither waits for the disk piece by piece nor takes every page fault by itself.
#ifndef QUIRE_RUNTIME_READ_AHEAD_H_
#define QUIRE_RUNTIME_READ_AHEAD_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/types/span.h"

namespace quire {

// A thread of its own goes ahead; whoever waits helps it. Used by one thread.
//
// It only asks: what cannot be had (the file was cut, the kernel is older than Linux 5.14) is left
// to be met by whoever reads it.
class ReadAhead {
 public:
  using Stretch = absl::Span<const uint8_t>;

  // Begins at once. The mapping must outlive it.
  explicit ReadAhead(const std::vector<Stretch>& stretches);
  ~ReadAhead();

  // Returns when a stretch is in memory.
  void WaitFor(int64_t stretch);

 private:
  struct Piece {
    Stretch memory;
    int64_t stretch;
  };
  // Takes the next piece. False where none is left.
  bool BringNext();

  std::vector<Piece> pieces_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  size_t next_ = 0;               // the piece to be taken
  std::vector<int64_t> pending_;  // pieces of each stretch that are not in memory yet
  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_READ_AHEAD_H_
