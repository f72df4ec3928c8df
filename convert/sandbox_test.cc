#include "convert/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

namespace quire {
namespace {

// Runs `attempt` in a process that has entered the sandbox for `folder`. Returns its exit code: 0,
// or errno.
template <typename F>
int InSandbox(const std::string& folder, F attempt) {
  const pid_t child = fork();
  if (child == 0) {
    SandboxPaths paths = CheckpointPaths(folder);
    paths.create.push_back(folder);
    EnterSandbox(paths);
    _exit(attempt() ? 0 : errno);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class SandboxTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "/sandbox_XXXXXX";
    ASSERT_NE(mkdtemp(root_.data()), nullptr);
    folder_ = root_ + "/checkpoint";
    mkdir(folder_.c_str(), 0700);
    mkdir((root_ + "/blobs").c_str(), 0700);
    std::ofstream(root_ + "/secret") << "secret";
    std::ofstream(root_ + "/blobs/weights") << "weights";
    std::ofstream(folder_ + "/config.json") << "{}";
    ASSERT_EQ(symlink("../blobs/weights", (folder_ + "/model.bin").c_str()), 0);
  }
  std::string root_, folder_;
};

bool Opens(const std::string& path, int flags) { return open(path.c_str(), flags, 0600) >= 0; }

TEST_F(SandboxTest, WhatAConversionNeedsGoesOn) {
  EXPECT_EQ(InSandbox(folder_, [&] { return Opens(folder_ + "/config.json", O_RDONLY); }), 0);
  EXPECT_EQ(InSandbox(folder_, [&] { return Opens(folder_ + "/model.bin", O_RDONLY); }), 0)
      << "a link of a cache";
  EXPECT_EQ(InSandbox(folder_, [&] { return Opens("/proc/self/status", O_RDONLY); }), 0);
  EXPECT_EQ(InSandbox(folder_,
                      [&] {
                        const int fd = open(folder_.c_str(), O_TMPFILE | O_RDWR, 0600);
                        const std::string self = "/proc/self/fd/" + std::to_string(fd);
                        return fd >= 0 && Opens(self, O_RDONLY) &&
                               linkat(AT_FDCWD, self.c_str(), AT_FDCWD, (folder_ + "/a").c_str(),
                                      AT_SYMLINK_FOLLOW) == 0 &&
                               rename((folder_ + "/a").c_str(), (folder_ + "/b").c_str()) == 0;
                      }),
            0);
}

TEST_F(SandboxTest, NoNetworkAndNoOtherProgram) {
  if (!ProbeSandbox().seccomp) GTEST_SKIP() << "this kernel has no seccomp";
  EXPECT_EQ(InSandbox(folder_, [] { return socket(AF_INET, SOCK_STREAM, 0) >= 0; }), EPERM);
  EXPECT_EQ(InSandbox(folder_, [] { return socket(AF_UNIX, SOCK_STREAM, 0) >= 0; }), EPERM);
  EXPECT_EQ(InSandbox(folder_,
                      [] {
                        execl("/bin/true", "true", nullptr);
                        return false;
                      }),
            EPERM);
}

TEST_F(SandboxTest, NoOtherFile) {
  if (ProbeSandbox().landlock_abi < 2) GTEST_SKIP() << "this kernel has no Landlock";
  EXPECT_EQ(InSandbox(folder_, [&] { return Opens(root_ + "/secret", O_RDONLY); }), EACCES);
  EXPECT_EQ(InSandbox(folder_, [&] { return Opens(root_ + "/new", O_WRONLY | O_CREAT); }), EACCES);
  EXPECT_EQ(InSandbox(folder_, [] { return Opens("/etc/passwd", O_RDONLY); }), EACCES);
  ASSERT_EQ(symlink("/", (folder_ + "/root").c_str()), 0);  // a link to a folder opens nothing
  EXPECT_EQ(InSandbox(folder_, [] { return Opens("/etc/passwd", O_RDONLY); }), EACCES);
  EXPECT_EQ(InSandbox(folder_, [&] { return unlink((root_ + "/secret").c_str()) == 0; }), EACCES);
}

}  // namespace
}  // namespace quire
