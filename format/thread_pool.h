// One pool of threads for everything: short barriers for the forward pass, dynamic work for
// conversion.
#ifndef QUIRE_FORMAT_THREAD_POOL_H_
#define QUIRE_FORMAT_THREAD_POOL_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

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
  // with, in order, and then takes from the others'. Waits for no thread that has not begun: where
  // processors are short, those that run do the work. n beyond 2^30 is for the caller's thread
  // alone.
  void ParallelFor(int64_t n, absl::FunctionRef<void(int64_t i, int thread)> task);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Threads to use where the user does not say: the CPUs this process may run on.
int DefaultThreads();

}  // namespace quire

#endif  // QUIRE_FORMAT_THREAD_POOL_H_
