#include "runtime/process_clock.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace quire {
namespace {

double Milliseconds(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

// On the clock CLOCK_BOOTTIME, as /proc tells it: field 22, in ticks. Negative where /proc does
// not.
double StartTicks() {
  char text[1024];
  FILE* file = std::fopen("/proc/self/stat", "re");
  if (file == nullptr) return -1;
  const size_t n = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  text[n] = 0;
  const char* field = std::strrchr(text, ')');  // ends field 2, which may contain anything
  for (int i = 2; field != nullptr && i < 22; ++i) field = std::strchr(field + 1, ' ');
  unsigned long long ticks = 0;
  if (field == nullptr || std::sscanf(field, "%llu", &ticks) != 1) return -1;
  return static_cast<double>(ticks);
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
