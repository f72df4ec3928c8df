// The process's memory over time, split as the kernel splits it.
#ifndef QUIRE_RUNTIME_FOOTPRINT_TIMELINE_H_
#define QUIRE_RUNTIME_FOOTPRINT_TIMELINE_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace quire {

struct TimelineSample {
  double ms = 0;  // since the timeline began
  int64_t anonymous = 0;
  int64_t file = 0;  // of all mapped files, in memory or on disk
};

// Samples from its construction on, in a thread of its own, every 2 ms at first. Of a long stretch
// it keeps every second sample, and then samples half as often, so that there are never more than
// kMaxSamples.
class Timeline {
 public:
  static constexpr size_t kMaxSamples = 1024;

  Timeline();
  ~Timeline();

  double Milliseconds() const;  // now
  // Ends the sampling.
  std::vector<TimelineSample> Finish();

 private:
  void Run();
  void Sample();

  const int64_t start_ns_;
  int64_t interval_us_ = 2000;
  std::vector<TimelineSample> samples_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_TIMELINE_H_
