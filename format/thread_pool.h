// One pool of threads for everything: short barriers for the forward pass, dynamic work for
// conversion.
#ifndef QUIRE_FORMAT_THREAD_POOL_H_
#define QUIRE_FORMAT_THREAD_POOL_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"

namespace quire {

// The caller's thread is one of the n. Not reentrant: Run is called from one thread at a time,
// never from inside Run.
class ThreadPool {
 public:
  // Starts n - 1 threads (n >= 1). Where the system refuses some, works with fewer.
  explicit ThreadPool(int n);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  // Calls task(thread) once on each thread, 0 .. size()-1, and returns when all have returned.
  // Waiting threads spin briefly, then sleep.
  void Run(absl::FunctionRef<void(int thread)> task);

  // Calls task(i, thread) once for every i in [0, n). Each thread has a stretch of its own to begin
  // with, in order, and then takes from the ends of the others'. Waits for no thread that has not
  // begun: where processors are short, those that run do the work. n beyond 2^29 is for the
  // caller's thread alone.
  void ParallelFor(int64_t n, absl::FunctionRef<void(int64_t i, int thread)> task);

  // The same for items so small that taking one costs as much as doing it: calls task(begin, end,
  // thread) for stretches that make up [0, n). Whoever takes takes half of what is left in one
  // place, so that the last stretches are short. While a thread waits for the others, it brings
  // ahead(thread) into its cache: what it is going to read first in the next round. That may lie
  // anywhere, and is never waited for.
  void ParallelRanges(int64_t n,
                      absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> task,
                      absl::FunctionRef<absl::Span<const uint8_t>(int thread)> ahead);

  // Of n items, where the share begins that `thread` starts with. FirstItem(n, size()) is n.
  int64_t FirstItem(int64_t n, int thread) const { return n * thread / size(); }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Threads to use where the user does not say: the CPUs this process may run on.
int DefaultThreads();

}  // namespace quire

#endif  // QUIRE_FORMAT_THREAD_POOL_H_
