// Hostile input must not cost more than it weighs.
#ifndef QUIRE_CONVERT_CAPPED_TEST_H_
#define QUIRE_CONVERT_CAPPED_TEST_H_

#include <sys/resource.h>

#include <chrono>

#include "gtest/gtest.h"

namespace quire {

// Fails a test that takes over 2 seconds, or makes the process's peak memory grow by over 64 MiB.
// Sanitizers multiply both, well within the caps for inputs of less than 1 MiB.
class CappedTest : public testing::Test {
 protected:
  void TearDown() override {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    EXPECT_LT(seconds.count(), 2.0);
    EXPECT_LT(PeakKilobytes() - peak_, 64 << 10);
  }

 private:
  static int64_t PeakKilobytes() {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  }

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const int64_t peak_ = PeakKilobytes();
};

}  // namespace quire

#endif  // QUIRE_CONVERT_CAPPED_TEST_H_
