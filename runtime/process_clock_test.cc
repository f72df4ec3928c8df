#include "runtime/process_clock.h"

#include <gtest/gtest.h>
#include <time.h>
#include <unistd.h>

namespace quire {
namespace {

TEST(ProcessClock, CountsFromTheStartOfTheProcess) {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  const double used_ms = used.tv_sec * 1e3 + used.tv_nsec * 1e-6;
  const double first = MillisecondsSinceStart();
  // A process of one thread cannot have used more than it has lived, nor has this one lived long.
  EXPECT_GE(first, used_ms - 0.1);
  EXPECT_LT(first, 60000);
  usleep(20000);
  const double second = MillisecondsSinceStart();
  EXPECT_GE(second - first, 20);
  EXPECT_LT(second - first, 10000);
}

}  // namespace
}  // namespace quire
