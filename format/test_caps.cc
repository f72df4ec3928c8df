#include "format/test_caps.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "format/process_memory.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

// They make code slower, and keep freed memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSanitizer = 8;
#else
constexpr int kSanitizer = 1;
#endif

double ProcessorSeconds() {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

class TestCaps : public testing::EmptyTestEventListener {
 public:
  static TestCaps& Get() {
    static auto* const caps = new TestCaps;  // GoogleTest deletes it
    return *caps;
  }
  void Allow(double seconds, int64_t mebibytes) {
    seconds_ = kSanitizer * seconds;
    mebibytes_ = kSanitizer * mebibytes;
  }

 private:
  void OnTestStart(const testing::TestInfo&) override {
    Allow(2, 64);
    // The high-water mark begins anew (proc(5)), or a test would hide behind the one before it.
    const int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    EXPECT_EQ(write(fd, "5", 1), 1);
    close(fd);
    start_bytes_ = ReadProcessMemory().peak_rss;
    start_seconds_ = ProcessorSeconds();
  }
  void OnTestEnd(const testing::TestInfo&) override {
    EXPECT_LT(ProcessorSeconds() - start_seconds_, seconds_);
    EXPECT_LT((ReadProcessMemory().peak_rss - start_bytes_) >> 20, mebibytes_);
  }

  double seconds_, start_seconds_;
  int64_t mebibytes_, start_bytes_;
};

[[maybe_unused]] const bool listens = [] {
  testing::UnitTest::GetInstance()->listeners().Append(&TestCaps::Get());
  return true;
}();

}  // namespace

void AllowThisTest(double seconds, int64_t mebibytes) { TestCaps::Get().Allow(seconds, mebibytes); }

}  // namespace quire
