// Hostile input must not cost more than it weighs.
#ifndef QUIRE_FORMAT_CAPPED_TEST_H_
#define QUIRE_FORMAT_CAPPED_TEST_H_

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>

#include "format/process_memory.h"
#include "gtest/gtest.h"

namespace quire {

// Fails a test that takes more processor time, or lets the process's resident memory grow by more,
// than it is allowed. Sanitizers multiply both, well within the caps for inputs of less than 1 MiB.
class CappedTest : public testing::Test {
 protected:
  CappedTest() {
    // The high-water mark begins anew (proc(5)), or a test would hide behind the one before it.
    const int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    EXPECT_EQ(write(fd, "5", 1), 1);
    close(fd);
    start_bytes_ = ReadProcessMemory().peak_rss;
    start_seconds_ = ProcessorSeconds();
  }
  // For what is large by its nature.
  void Allow(double seconds, int64_t mebibytes) {
    allowed_seconds_ = seconds;
    allowed_mebibytes_ = mebibytes;
  }
  void TearDown() override {
    EXPECT_LT(ProcessorSeconds() - start_seconds_, allowed_seconds_);
    EXPECT_LT((ReadProcessMemory().peak_rss - start_bytes_) >> 20, allowed_mebibytes_);
  }

 private:
  static double ProcessorSeconds() {
    timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
  }

  double allowed_seconds_ = 2;
  int64_t allowed_mebibytes_ = 64;
  double start_seconds_;
  int64_t start_bytes_;
};

}  // namespace quire

#endif  // QUIRE_FORMAT_CAPPED_TEST_H_
