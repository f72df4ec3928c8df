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

// Items [begin, end).
struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Each thread has a share of the items, of which it takes some after others from the front; whoever
// has none left takes from the others', from the back. In one word, so that a claim is one atomic
// operation, which is right whenever it succeeds: even if it was meant for a round that is over.
struct alignas(kApart) Share {
  static constexpr uint64_t kOwnerOnly = uint64_t{1} << 63;
  static constexpr uint64_t kHalves = uint64_t{1} << 62;  // a claim is half of what is left
  static constexpr int64_t kMaxItems = int64_t{1} << 29;

  std::atomic<uint64_t> word{0};  // the next item, then << 32 the end, and flags

  static int64_t Next(uint64_t word) { return static_cast<uint32_t>(word); }
  static int64_t End(uint64_t word) { return (word & ~(kOwnerOnly | kHalves)) >> 32; }
  static bool Empty(uint64_t word) { return Next(word) >= End(word); }
  static int64_t Claim(uint64_t word) {
    return (word & kHalves) == 0 ? 1 : (End(word) - Next(word) + 1) / 2;
  }

  void Fill(Range items, uint64_t flags) {
    word.store(static_cast<uint64_t>(items.end) << 32 | static_cast<uint64_t>(items.begin) | flags,
               std::memory_order_seq_cst);
  }
  // The next items; none where none is left.
  Range Take() {
    uint64_t now = word.load(std::memory_order_relaxed);
    while (!Empty(now)) {
      const int64_t n = Claim(now);
      if (word.compare_exchange_weak(now, now + n, std::memory_order_acq_rel)) {
        return {Next(now), Next(now) + n};
      }
    }
    return {0, 0};
  }
  Range TakeForAnother() {
    uint64_t now = word.load(std::memory_order_relaxed);
    while (!Empty(now) && (now & kOwnerOnly) == 0) {
      const uint64_t n = Claim(now);
      if (word.compare_exchange_weak(now, now - (n << 32), std::memory_order_acq_rel)) {
        return {End(now) - static_cast<int64_t>(n), End(now)};
      }
    }
    return {0, 0};
  }
};

// Brings memory into this thread's cache, until there is something else to do.
template <typename Done>
void Fetch(absl::Span<const uint8_t> memory, const Done& done) {
  constexpr size_t kLine = 64, kLook = 256;
  for (size_t i = 0; i < memory.size() && !done(); i += kLook) {
    for (size_t line = i; line < i + kLook; line += kLine) {
      __builtin_prefetch(memory.data() + line);
    }
  }
}

absl::Span<const uint8_t> Nothing(int) { return {}; }

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
  // Written before shares are filled.
  const absl::FunctionRef<void(int64_t, int64_t, int)>* task = nullptr;
  const absl::FunctionRef<absl::Span<const uint8_t>(int)>* ahead = nullptr;
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
    const auto work = [&](Range range) {
      if (range.size() > 0) (*task)(range.begin, range.end, thread);
      items += range.size();
      return range.size() > 0;
    };
    while (work(shares[thread].Take())) {
    }
    for (int k = 1; k < n; ++k) {
      while (work(shares[(thread + k) % n].TakeForAnother())) {
      }
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
      // Asked for before it is announced that this thread is done, when what it points to may go.
      const absl::Span<const uint8_t> next = (*ahead)(thread);
      finished[thread].items.fetch_add(items, std::memory_order_seq_cst);
      if (caller_sleeps.load(std::memory_order_seq_cst)) {
        std::lock_guard<std::mutex> lock(mutex);
        done.notify_one();
      }
      Fetch(next, called);
    }
  }

  // Calls task for shares of [0, n), the caller's included, and returns when all items are done.
  void ShareOut(int64_t n, uint64_t flags, absl::FunctionRef<void(int64_t, int64_t, int)> call,
                absl::FunctionRef<absl::Span<const uint8_t>(int)> next, const ThreadPool& pool) {
    task = &call;
    ahead = &next;
    for (int t = 0; t < pool.size(); ++t) {
      shares[t].Fill({pool.FirstItem(n, t), pool.FirstItem(n, t + 1)}, flags);
    }
    WakeSleepers();
    AwaitOthers(n, WorkOff(0));
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
    Fetch((*ahead)(0), [&] { return Finished(); });
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
  p.ShareOut(
      size(), Share::kOwnerOnly, [&](int64_t, int64_t, int thread) { task(thread); }, Nothing,
      *this);
}

void ThreadPool::ParallelFor(int64_t n, absl::FunctionRef<void(int64_t i, int thread)> task) {
  Impl& p = *impl_;
  if (p.threads.empty() || n <= 1 || n > Share::kMaxItems) {
    for (int64_t i = 0; i < n; ++i) task(i, 0);
    return;
  }
  p.ShareOut(n, 0, [&](int64_t i, int64_t, int thread) { task(i, thread); }, Nothing, *this);
}

void ThreadPool::ParallelRanges(
    int64_t n, absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> task,
    absl::FunctionRef<absl::Span<const uint8_t>(int thread)> ahead) {
  Impl& p = *impl_;
  if (p.threads.empty() || n <= 1 || n > Share::kMaxItems) {
    if (n > 0) task(0, n, 0);
    return;
  }
  p.ShareOut(n, Share::kHalves, task, ahead, *this);
}

int DefaultThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace quire
