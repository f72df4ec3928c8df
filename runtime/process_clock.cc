#include "runtime/process_clock.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "format/kernel_text.h"
#include "runtime/footprint/proc.h"

namespace quire {
namespace {

double Milliseconds(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

// On the clock CLOCK_BOOTTIME, as /proc tells it. Negative where /proc does not.
double StartTicks() {
  const absl::StatusOr<ProcStat> stat =
      ParseProcStat(ReadKernelText("/proc/self/stat").value_or(""));
  return stat.ok() ? static_cast<double>(stat->start_ticks) : -1;
}

double Start() {
  const double now = Milliseconds(CLOCK_BOOTTIME);
  const double by_processor_time = now - Milliseconds(CLOCK_PROCESS_CPUTIME_ID);
  const double ticks = StartTicks();
  if (ticks < 0) return by_processor_time;
  const double tick_ms = 1e3 / static_cast<double>(sysconf(_SC_CLK_TCK));
  return std::clamp(by_processor_time, ticks * tick_ms, (ticks + 1) * tick_ms);
}

}  // namespace

double MillisecondsSinceStart() {
  static const double start = Start();
  return Milliseconds(CLOCK_BOOTTIME) - start;
}

}  // namespace quire
