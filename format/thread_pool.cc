#include "format/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace quire {
namespace {

// About 20 us: longer than the pause between two phases of a forward pass, shorter than a
// scheduler's tick.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

// A generation counter starts a round; `running` counts the threads that have not finished it. Both
// are spun on first and waited for second. Sleepers are woken under the mutex, so that none is
// missed.
struct ThreadPool::Impl {
  std::vector<std::thread> threads;
  std::atomic<uint64_t> generation{0};
  std::atomic<int> running{0};
  std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  bool stop = false;  // written before a generation starts
  const absl::FunctionRef<void(int)>* task = nullptr;
  std::mutex mutex;
  std::condition_variable start, done;

  void Work(int thread) {
    uint64_t seen = 0;
    while (true) {
      for (int i = 0; i < kSpins && generation.load(std::memory_order_acquire) == seen; ++i)
        Pause();
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex);
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        start.wait(lock, [&] { return generation.load(std::memory_order_seq_cst) != seen; });
        sleepers.fetch_sub(1, std::memory_order_relaxed);
      }
      ++seen;
      if (stop) return;
      (*task)(thread);
      if (running.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
          caller_sleeps.load(std::memory_order_seq_cst)) {
        std::lock_guard<std::mutex> lock(mutex);
        done.notify_one();
      }
    }
  }

  void Start() {
    generation.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      start.notify_all();
    }
  }
};

ThreadPool::ThreadPool(int n) : impl_(new Impl) {
  for (int i = 1; i < n; ++i) {
    try {  // std::thread reports refusal only by exception
      impl_->threads.emplace_back([this, i] { impl_->Work(i); });
    } catch (const std::system_error&) {
      break;
    }
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop = true;
  impl_->Start();
  for (std::thread& thread : impl_->threads) thread.join();
}

int ThreadPool::size() const { return static_cast<int>(impl_->threads.size()) + 1; }

void ThreadPool::Run(absl::FunctionRef<void(int thread)> task) {
  Impl& p = *impl_;
  if (p.threads.empty()) return task(0);
  p.task = &task;
  p.running.store(static_cast<int>(p.threads.size()), std::memory_order_relaxed);
  p.Start();
  task(0);
  for (int i = 0; i < kSpins && p.running.load(std::memory_order_acquire) > 0; ++i) Pause();
  if (p.running.load(std::memory_order_acquire) == 0) return;
  std::unique_lock<std::mutex> lock(p.mutex);
  p.caller_sleeps.store(true, std::memory_order_seq_cst);
  p.done.wait(lock, [&] { return p.running.load(std::memory_order_seq_cst) == 0; });
  p.caller_sleeps.store(false, std::memory_order_relaxed);
}

void ThreadPool::ParallelFor(int64_t n, absl::FunctionRef<void(int64_t i, int thread)> task) {
  std::atomic<int64_t> next{0};
  Run([&](int thread) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(i, thread);
  });
}

int DefaultThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace quire
