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

// A round: the caller opens it, threads join it while it is open, the caller closes it and waits
// for those that joined. So a thread that the system keeps waiting for a processor holds up nobody
// but in Run, which needs every one. `state` is spun on first and waited for second; sleepers are
// woken under the mutex, so that none is missed.
struct ThreadPool::Impl {
  static constexpr uint64_t kOpen = uint64_t{1} << 31;  // below it: threads at work
  static constexpr uint64_t kRound = uint64_t{1} << 32;

  std::vector<std::thread> threads;
  std::atomic<uint64_t> state{0};
  std::atomic<int> finished{0};  // threads that have joined and left this round
  std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  bool stop = false;  // written before a round is opened
  const absl::FunctionRef<void(int)>* task = nullptr;
  std::mutex mutex;
  std::condition_variable start, done;

  static uint64_t RoundOf(uint64_t state) { return state / kRound; }

  void Work(int thread) {
    uint64_t seen = 0;
    while (true) {
      for (int i = 0; i < kSpins && RoundOf(state.load(std::memory_order_acquire)) == seen; ++i)
        Pause();
      if (RoundOf(state.load(std::memory_order_acquire)) == seen) {
        std::unique_lock<std::mutex> lock(mutex);
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        start.wait(lock, [&] { return RoundOf(state.load(std::memory_order_seq_cst)) != seen; });
        sleepers.fetch_sub(1, std::memory_order_relaxed);
      }
      uint64_t now = state.load(std::memory_order_acquire);
      while ((now & kOpen) != 0 &&
             !state.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) {
      }
      seen = RoundOf(now);
      if ((now & kOpen) == 0) continue;
      const bool last = stop;
      if (!last) (*task)(thread);
      finished.fetch_add(1, std::memory_order_seq_cst);
      state.fetch_sub(1, std::memory_order_seq_cst);
      if (last) return;
      if (caller_sleeps.load(std::memory_order_seq_cst)) {
        std::lock_guard<std::mutex> lock(mutex);
        done.notify_one();
      }
    }
  }

  void Open(const absl::FunctionRef<void(int)>* next) {
    task = next;
    finished.store(0, std::memory_order_relaxed);
    const uint64_t round = RoundOf(state.load(std::memory_order_relaxed)) + 1;
    state.store(round * kRound | kOpen, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      start.notify_all();
    }
  }

  template <typename Condition>
  void Await(Condition condition) {
    for (int i = 0; i < kSpins; ++i) {
      if (condition()) return;
      Pause();
    }
    std::unique_lock<std::mutex> lock(mutex);
    caller_sleeps.store(true, std::memory_order_seq_cst);
    done.wait(lock, condition);
    caller_sleeps.store(false, std::memory_order_relaxed);
  }

  void Close() {
    state.fetch_and(~kOpen, std::memory_order_seq_cst);
    Await([&] { return state.load(std::memory_order_seq_cst) % kOpen == 0; });
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
  impl_->Open(nullptr);  // never closed: every thread comes, and returns
  for (std::thread& thread : impl_->threads) thread.join();
}

int ThreadPool::size() const { return static_cast<int>(impl_->threads.size()) + 1; }

void ThreadPool::Run(absl::FunctionRef<void(int thread)> task) {
  Impl& p = *impl_;
  if (p.threads.empty()) return task(0);
  p.Open(&task);
  task(0);
  const int all = static_cast<int>(p.threads.size());
  p.Await([&] { return p.finished.load(std::memory_order_seq_cst) == all; });
  p.Close();
}

void ThreadPool::ParallelFor(int64_t n, absl::FunctionRef<void(int64_t i, int thread)> task) {
  std::atomic<int64_t> next{0};
  const auto work = [&](int thread) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) task(i, thread);
  };
  Impl& p = *impl_;
  if (p.threads.empty() || n == 1) {
    work(0);
    return;
  }
  const absl::FunctionRef<void(int)> reference = work;
  p.Open(&reference);
  work(0);
  p.Close();
}

int DefaultThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace quire
