// Hostile input must not cost more than it weighs.
#ifndef QUIRE_FORMAT_CAPPED_TEST_H_
#define QUIRE_FORMAT_CAPPED_TEST_H_

#include <sys/resource.h>

#include <cstdint>

#include "gtest/gtest.h"

namespace quire {

// Fails a test that takes over 2 seconds of processor time, or makes the process's peak memory grow
// by over 64 MiB. Sanitizers multiply both, well within the caps for inputs of less than 1 MiB.
class CappedTest : public testing::Test {
 protected:
  void TearDown() override {
    const Usage now = Now();
    EXPECT_LT(now.seconds - start_.seconds, 2.0);
    EXPECT_LT(now.peak_kilobytes - start_.peak_kilobytes, 64 << 10);
  }

 private:
  struct Usage {
    double seconds;
    int64_t peak_kilobytes;
  };
  static Usage Now() {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return {seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss};
  }

  const Usage start_ = Now();
};

}  // namespace quire

#endif  // QUIRE_FORMAT_CAPPED_TEST_H_
