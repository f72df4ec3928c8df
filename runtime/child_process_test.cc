#include "runtime/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace quire {
namespace {

// The children are this test itself, told to run one of the tests that are disabled otherwise.
std::vector<std::string> Only(const std::string& test) {
  return {"--gtest_also_run_disabled_tests", "--gtest_brief=1",
          "--gtest_filter=Child.DISABLED_" + test};
}

TEST(Child, DISABLED_Echoes) {
  std::printf("\necho ready\n");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}
TEST(Child, DISABLED_Fails) { _exit(3); }
TEST(Child, DISABLED_HasSaidWhy) { _exit(1); }
TEST(Child, DISABLED_Dies) { raise(SIGKILL); }
TEST(Child, DISABLED_Sleeps) {
  std::printf("\nasleep\n");
  std::fflush(stdout);
  sleep(1000);
}

absl::Status ReadUntil(ChildProcess& child, const std::string& wanted) {
  while (true) {
    absl::StatusOr<std::string> line = child.ReadLine();
    if (!line.ok()) return line.status();
    if (*line == wanted) return absl::OkStatus();
  }
}

TEST(ChildProcess, SpeaksAndEndsWhenItsInputEnds) {
  auto child = *ChildProcess::Start(Only("Echoes"), "");
  EXPECT_TRUE(ReadUntil(*child, "echo ready").ok());
  EXPECT_EQ(kill(child->pid(), 0), 0);
  EXPECT_TRUE(child->Wait().ok());
}

TEST(ChildProcess, FailureIsToldWithItsCode) {
  auto child = *ChildProcess::Start(Only("Fails"), "");
  const absl::Status status = ReadUntil(*child, "never said");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("exit code 3"), absl::string_view::npos) << status;
  // Exit code 1: the reason is on stderr already, and is not told twice.
  EXPECT_EQ((*ChildProcess::Start(Only("HasSaidWhy"), ""))->Wait().code(),
            absl::StatusCode::kAborted);
  auto killed = *ChildProcess::Start(Only("Dies"), "");
  EXPECT_NE(killed->Wait().message().find("signal 9"), absl::string_view::npos);
}

TEST(ChildProcess, ACgroupThatIsNotThereIsToldBeforeTheProgramRuns) {
  auto child = *ChildProcess::Start(Only("Echoes"), testing::TempDir() + "/no-such-cgroup");
  EXPECT_NE(child->ReadLine().status().message().find("cgroup"), absl::string_view::npos);
}

TEST(ChildProcess, NoneOutlivesItsObject) {
  pid_t pid;
  {
    auto child = *ChildProcess::Start(Only("Sleeps"), "");
    pid = child->pid();
    EXPECT_TRUE(ReadUntil(*child, "asleep").ok());
  }
  EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

}  // namespace
}  // namespace quire
