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

// What a thread writes lies in lines of its own, two of them, since processors fetch them in pairs.
// Passing a line from one core to another takes as long as reading kilobytes of weights.
constexpr int kApart = 128;

// Each thread has a share of the items, of which it takes one after another; whoever has none left
// takes from the others. In one word, so that a claim is one atomic operation, which is right
// whenever it succeeds: even if it was meant for a round that is over.
struct alignas(kApart) Share {
  static constexpr uint64_t kOwnerOnly = uint64_t{1} << 63;
  static constexpr int64_t kMaxItems = int64_t{1} << 30;

  std::atomic<uint64_t> word{0};  // the next item, then << 32 the end, and kOwnerOnly

  static uint32_t Next(uint64_t word) { return static_cast<uint32_t>(word); }
  static uint32_t End(uint64_t word) { return static_cast<uint32_t>((word & ~kOwnerOnly) >> 32); }
  static bool Empty(uint64_t word) { return Next(word) >= End(word); }

  void Fill(int64_t begin, int64_t end, uint64_t flags) {
    word.store(static_cast<uint64_t>(end) << 32 | static_cast<uint64_t>(begin) | flags,
               std::memory_order_seq_cst);
  }
  // The next item, or -1.
  int64_t Take() {
    if (Empty(word.load(std::memory_order_relaxed))) return -1;
    const uint64_t now = word.fetch_add(1, std::memory_order_acq_rel);
    return Empty(now) ? -1 : int64_t{Next(now)};
  }
  int64_t TakeForAnother() {
    uint64_t now = word.load(std::memory_order_relaxed);
    while (!Empty(now) && (now & kOwnerOnly) == 0) {
      if (word.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return Next(now);
    }
    return -1;
  }
};

}  // namespace

// The caller fills the shares, works like all others until no item is left, and waits for those
// that others have taken: for nobody who has not begun. Threads look at their own share only, spin
// first and sleep then; sleepers are woken under the mutex, so that none is missed.
struct ThreadPool::Impl {
  struct alignas(kApart) Count {
    std::atomic<int64_t> items{0};
  };

  explicit Impl(int n) : shares(n), finished(n) {}

  std::vector<std::thread> threads;
  std::vector<Share> shares;
  std::vector<Count> finished;  // by each thread, ever; the caller's is not used
  const absl::FunctionRef<void(int64_t, int)>* task = nullptr;  // written before shares are filled
  int64_t expected = 0;  // the sum of `finished` once all is done
  alignas(kApart) std::atomic<bool> stop{false};
  std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  std::mutex mutex;
  std::condition_variable start, done;

  // Does items until none is left. Returns how many.
  int64_t WorkOff(int thread) {
    const int n = static_cast<int>(shares.size());
    int64_t items = 0;
    for (int64_t i; (i = shares[thread].Take()) >= 0; ++items) (*task)(i, thread);
    for (int k = 1; k < n; ++k) {
      Share& other = shares[(thread + k) % n];
      for (int64_t i; (i = other.TakeForAnother()) >= 0; ++items) (*task)(i, thread);
    }
    return items;
  }

  void Work(int thread) {
    Share& own = shares[thread];
    const auto called = [&] {
      return !Share::Empty(own.word.load(std::memory_order_seq_cst)) ||
             stop.load(std::memory_order_seq_cst);
    };
    while (true) {
      for (int i = 0; i < kSpins && !called(); ++i) Pause();
      if (!called()) {
        std::unique_lock<std::mutex> lock(mutex);
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        start.wait(lock, called);
        sleepers.fetch_sub(1, std::memory_order_relaxed);
      }
      if (stop.load(std::memory_order_acquire)) return;
      const int64_t items = WorkOff(thread);
      if (items == 0) continue;
      finished[thread].items.fetch_add(items, std::memory_order_seq_cst);
      if (caller_sleeps.load(std::memory_order_seq_cst)) {
        std::lock_guard<std::mutex> lock(mutex);
        done.notify_one();
      }
    }
  }

  void WakeSleepers() {
    if (sleepers.load(std::memory_order_seq_cst) == 0) return;
    std::lock_guard<std::mutex> lock(mutex);
    start.notify_all();
  }

  bool Finished() const {
    int64_t sum = 0;
    for (const Count& count : finished) sum += count.items.load(std::memory_order_seq_cst);
    return sum == expected;
  }

  // items: of n, those that the caller has done.
  void AwaitOthers(int64_t n, int64_t items) {
    expected += n - items;
    for (int i = 0; i < kSpins; ++i) {
      if (Finished()) return;
      Pause();
    }
    std::unique_lock<std::mutex> lock(mutex);
    caller_sleeps.store(true, std::memory_order_seq_cst);
    done.wait(lock, [&] { return Finished(); });
    caller_sleeps.store(false, std::memory_order_relaxed);
  }
};

ThreadPool::ThreadPool(int n) : impl_(new Impl(n)) {
  for (int i = 1; i < n; ++i) {
    try {  // std::thread reports refusal only by exception
      impl_->threads.emplace_back([this, i] { impl_->Work(i); });
    } catch (const std::system_error&) {
      break;
    }
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_seq_cst);
  impl_->WakeSleepers();
  for (std::thread& thread : impl_->threads) thread.join();
}

int ThreadPool::size() const { return static_cast<int>(impl_->threads.size()) + 1; }

void ThreadPool::Run(absl::FunctionRef<void(int thread)> task) {
  Impl& p = *impl_;
  if (p.threads.empty()) return task(0);
  const auto call = [&](int64_t, int thread) { task(thread); };
  const absl::FunctionRef<void(int64_t, int)> reference = call;
  p.task = &reference;
  for (int t = 1; t < size(); ++t) p.shares[t].Fill(t, t + 1, Share::kOwnerOnly);
  p.WakeSleepers();
  task(0);
  p.AwaitOthers(size(), 1);
}

void ThreadPool::ParallelFor(int64_t n, absl::FunctionRef<void(int64_t i, int thread)> task) {
  Impl& p = *impl_;
  if (p.threads.empty() || n <= 1 || n > Share::kMaxItems) {
    for (int64_t i = 0; i < n; ++i) task(i, 0);
    return;
  }
  p.task = &task;
  for (int t = 0; t < size(); ++t) p.shares[t].Fill(n * t / size(), n * (t + 1) / size(), 0);
  p.WakeSleepers();
  p.AwaitOthers(n, p.WorkOff(0));
}

int DefaultThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace quire
