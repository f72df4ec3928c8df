#include "convert/sandbox.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "format/file.h"

namespace quire {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif

// Calls that neither reading a checkpoint nor writing a file needs.
constexpr int kDenied[] = {
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_setns,
    SYS_unshare,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_io_uring_setup,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_pidfd_getfd,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_setuid,
    SYS_setgid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_capset,
    SYS_kill,
    SYS_tkill,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_memfd_create,
};

// Access rights of the first Landlock ABI that concern files, and those of later ones.
constexpr uint64_t kReadFile = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kCreate =
    LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;
constexpr uint64_t kAllOfAbi1 =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | kReadFile |
    LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
    LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
    LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;
constexpr uint64_t kRefer = uint64_t{1} << 13;     // ABI 2: link and rename between folders
constexpr uint64_t kTruncate = uint64_t{1} << 14;  // ABI 3

int LandlockAbi() {
  const long abi =
      syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return abi > 0 ? static_cast<int>(abi) : 0;
}

void Allow(int ruleset, const std::string& path, uint64_t access) {
  int fd;
  do {
    fd = open(path.c_str(), O_PATH | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return;
  struct stat info;
  if (fstat(fd, &info) == 0) {
    // Rights on folders mean nothing for a file, and are refused.
    if (!S_ISDIR(info.st_mode))
      access &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate;
    landlock_path_beneath_attr rule = {access, fd};
    syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  }
  close(fd);
}

bool RestrictFiles(int abi, const SandboxPaths& paths) {
  uint64_t handled = kAllOfAbi1, create = kReadFile | kCreate;
  if (abi >= 2) handled |= kRefer, create |= kRefer;
  if (abi >= 3) handled |= kTruncate, create |= kTruncate;
  landlock_ruleset_attr attributes = {};
  attributes.handled_access_fs = handled;
  const int ruleset =
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0));
  if (ruleset < 0) return false;
  for (const std::string& path : paths.read) Allow(ruleset, path, kReadFile);
  for (const std::string& path : paths.create) Allow(ruleset, path, create);
  const bool ok = syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
  close(ruleset);
  return ok;
}

bool RestrictCalls() {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),  // numbers mean other calls there
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
#if defined(__x86_64__)
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),  // the x32 names of the same calls
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
#endif
  };
  for (const int call : kDenied) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

SandboxSupport ProbeSandbox() { return {LandlockAbi(), prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0}; }

SandboxSupport EnterSandbox(const SandboxPaths& paths) {
  SandboxSupport held;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return held;
  const int abi = LandlockAbi();
  // Before ABI 2 a file without a name cannot be given one under any rule: no file rules then.
  if (abi >= 2 && RestrictFiles(abi, paths)) held.landlock_abi = abi;
  held.seccomp = RestrictCalls();
  return held;
}

void AllowReading(const std::string& path, SandboxPaths* paths) {
  const std::string home = FolderOf(path);
  paths->read.push_back(home);
  paths->read.push_back(path);
  if (DIR* entries = opendir(home.c_str())) {
    while (const dirent* entry = readdir(entries)) {
      const std::string name = home + entry->d_name;
      struct stat link, target;
      // Files alone: a link to a folder could open the whole file system.
      if (lstat(name.c_str(), &link) != 0 || !S_ISLNK(link.st_mode) ||
          stat(name.c_str(), &target) != 0 || !S_ISREG(target.st_mode)) {
        continue;
      }
      if (char* resolved = realpath(name.c_str(), nullptr)) {
        paths->read.push_back(resolved);
        free(resolved);
      }
    }
    closedir(entries);
  }
}

SandboxPaths CheckpointPaths(const std::string& source) {
  SandboxPaths paths;
  paths.read = {"/proc/self", "/proc/meminfo"};
  AllowReading(source, &paths);
  // Meta's downloads keep the tokenizer a folder above the weights.
  for (const char* name :
       {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "generation_config.json", "config.json", "chat_template.jinja"}) {
    paths.read.push_back(FolderOf(source) + "../" + name);
  }
  return paths;
}

}  // namespace quire
