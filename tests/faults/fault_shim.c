// LD_PRELOAD: makes one call of one function fail, as a failing disk or an exhausted machine would.
//
//   QUIRE_FAULT=pread:7:EIO     the 7th pread fails with EIO
//   QUIRE_FAULT=malloc:7+:ENOMEM  the 7th allocation and all that follow
//   QUIRE_FAULT=pwrite:3:short  the 3rd pwrite writes only a part of its bytes
//   QUIRE_FAULT=any:9:SIGTERM   a signal (or SIGKILL) comes before the 9th call of any but malloc
//   QUIRE_FAULT_COUNT=FILE      an existing file of 8 bytes or more that holds the number of calls
//                               so far, also when the process is killed
//   QUIRE_FAULT_NO_TMPFILE=1    the file system has no unnamed temporary files
//
// Variants of a function count as one: open and openat, malloc and calloc, rename and link, ...
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const struct {
  const char* name;
  int number;
} kErrors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM}, {"EINTR", EINTR},
               {"EAGAIN", EAGAIN}, {"EDQUOT", EDQUOT}, {"EXDEV", EXDEV},   {"EACCES", EACCES},
               {"ENODEV", ENODEV}, {"EMFILE", EMFILE}, {"EINVAL", EINVAL}, {"EOPNOTSUPP", EOPNOTSUPP},
               {"ENOLCK", ENOLCK}};

static char function[32];
static uint64_t first, sticky;
static int error, part, end;   // what happens: an errno, only a part is done, a signal
static volatile uint64_t* count;  // shared with the file
static uint64_t private_count;
static int no_tmpfile;

// Not through open and mmap, which may be the ones that fail.
__attribute__((constructor(101))) static void Start(void) {
  no_tmpfile = getenv("QUIRE_FAULT_NO_TMPFILE") != NULL;
  const char* file = getenv("QUIRE_FAULT_COUNT");
  if (file != NULL) {
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR);
    const long page = fd < 0 ? -1 : syscall(SYS_mmap, NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != -1) count = (volatile uint64_t*)page;
    if (fd >= 0) syscall(SYS_close, fd);
  }
  if (count == NULL) count = &private_count;
  const char* fault = getenv("QUIRE_FAULT");
  if (fault == NULL) return;
  char number[24] = "", effect[24] = "";
  if (sscanf(fault, "%31[^:]:%23[^:]:%23s", function, number, effect) != 3) _exit(99);
  first = strtoull(number, NULL, 10);
  sticky = number[strlen(number) - 1] == '+';
  part = strcmp(effect, "short") == 0;
  for (size_t i = 0; i < sizeof kErrors / sizeof kErrors[0]; ++i) {
    if (strcmp(effect, kErrors[i].name) == 0) error = kErrors[i].number;
  }
  if (strcmp(effect, "SIGTERM") == 0) end = SIGTERM;
  if (strcmp(effect, "SIGKILL") == 0) end = SIGKILL;
  if (!part && error == 0 && end == 0) _exit(99);
}

// Whether this call is the one that fails.
static int Hit(const char* name) {
  if (end != 0 ? strcmp(name, "malloc") == 0 : function[0] != name[0] || strcmp(function, name) != 0) return 0;
  const uint64_t n = __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
  if (n != first && !(sticky && n > first)) return 0;
  if (end != 0) raise(end);
  return end == 0;
}
// Fails: sets errno.
static int Fails(const char* name) {
  if (!Hit(name) || part) return 0;
  errno = error;
  return 1;
}
// The bytes that a call of `n` shall move; -1: it fails.
static ssize_t Share(const char* name, size_t n) {
  if (!Hit(name)) return (ssize_t)n;
  if (part) return n > 1 ? (ssize_t)(n / 2) : (ssize_t)n;
  errno = error;
  return -1;
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

static int Open(int folder, const char* path, int flags, mode_t mode) {
  if (Fails("open")) return -1;
  if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
    errno = EOPNOTSUPP;
    return -1;
  }
  const long fd = syscall(SYS_openat, folder, path, flags, mode);
  return (int)fd;
}
#define MODE                                                         \
  mode_t mode = 0;                                                   \
  if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) {  \
    va_list list;                                                    \
    va_start(list, flags);                                           \
    mode = va_arg(list, mode_t);                                     \
    va_end(list);                                                    \
  }
int open(const char* path, int flags, ...) {
  MODE return Open(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  MODE return Open(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  MODE return Open(folder, path, flags, mode);
}
int mkostemp(char* name, int flags) {
  return Fails("open") ? -1 : NEXT(int (*)(char*, int), "mkostemp")(name, flags);
}

char* mkdtemp(char* name) { return Fails("open") ? NULL : NEXT(char* (*)(char*), "mkdtemp")(name); }
int mkdir(const char* name, mode_t mode) {
  return Fails("open") ? -1 : NEXT(int (*)(const char*, mode_t), "mkdir")(name, mode);
}
DIR* opendir(const char* name) { return Fails("open") ? NULL : NEXT(DIR * (*)(const char*), "opendir")(name); }
int flock(int fd, int operation) { return Fails("flock") ? -1 : (int)syscall(SYS_flock, fd, operation); }

ssize_t read(int fd, void* data, size_t n) {
  const ssize_t share = Share("read", n);
  return share < 0 ? -1 : syscall(SYS_read, fd, data, share);
}
size_t fread(void* data, size_t size, size_t n, FILE* file) {
  return Fails("read") ? 0 : NEXT(size_t(*)(void*, size_t, size_t, FILE*), "fread")(data, size, n, file);
}
ssize_t pread(int fd, void* data, size_t n, off_t at) {
  const ssize_t share = Share("pread", n);
  return share < 0 ? -1 : syscall(SYS_pread64, fd, data, share, at);
}
ssize_t pread64(int fd, void* data, size_t n, off_t at) { return pread(fd, data, n, at); }
ssize_t write(int fd, const void* data, size_t n) {
  const ssize_t share = fd == STDERR_FILENO ? (ssize_t)n : Share("write", n);
  return share < 0 ? -1 : syscall(SYS_write, fd, data, share);
}
size_t fwrite(const void* data, size_t size, size_t n, FILE* file) {
  return file != stderr && Fails("write") ? 0
                        : NEXT(size_t(*)(const void*, size_t, size_t, FILE*), "fwrite")(data, size, n, file);
}
ssize_t pwrite(int fd, const void* data, size_t n, off_t at) {
  const ssize_t share = Share("pwrite", n);
  return share < 0 ? -1 : syscall(SYS_pwrite64, fd, data, share, at);
}
ssize_t pwrite64(int fd, const void* data, size_t n, off_t at) { return pwrite(fd, data, n, at); }

int fsync(int fd) { return Fails("fsync") ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return Fails("fsync") ? -1 : (int)syscall(SYS_fdatasync, fd); }
int msync(void* address, size_t n, int flags) {
  return Fails("fsync") ? -1 : (int)syscall(SYS_msync, address, n, flags);
}
// The file is closed all the same, as by Linux.
int close(int fd) {
  const int result = (int)syscall(SYS_close, fd);
  return Fails("close") ? -1 : result;
}
int ftruncate(int fd, off_t n) { return Fails("fallocate") ? -1 : (int)syscall(SYS_ftruncate, fd, n); }
int fallocate(int fd, int mode, off_t at, off_t n) {
  return Fails("fallocate") ? -1 : (int)syscall(SYS_fallocate, fd, mode, at, n);
}
int posix_fallocate(int fd, off_t at, off_t n) {
  if (Fails("fallocate")) return error;
  return syscall(SYS_fallocate, fd, 0, at, n) == 0 ? 0 : errno;
}

int link(const char* from, const char* to) {
  return Fails("rename") ? -1 : NEXT(int (*)(const char*, const char*), "link")(from, to);
}
int linkat(int a, const char* from, int b, const char* to, int flags) {
  return Fails("rename") ? -1 : (int)syscall(SYS_linkat, a, from, b, to, flags);
}
int rename(const char* from, const char* to) {
  return Fails("rename") ? -1 : NEXT(int (*)(const char*, const char*), "rename")(from, to);
}
int renameat2(int a, const char* from, int b, const char* to, unsigned flags) {
  return Fails("rename") ? -1 : (int)syscall(SYS_renameat2, a, from, b, to, flags);
}

void* mmap(void* address, size_t n, int protection, int flags, int fd, off_t at) {
  if (Fails("mmap")) return MAP_FAILED;
  return (void*)syscall(SYS_mmap, address, n, protection, flags, fd, at);
}
int madvise(void* address, size_t n, int advice) {
  return Fails("madvise") ? -1 : (int)syscall(SYS_madvise, address, n, advice);
}
int posix_madvise(void* address, size_t n, int advice) {
  return Fails("madvise") ? error : NEXT(int (*)(void*, size_t, int), "posix_madvise")(address, n, advice);
}
int posix_fadvise(int fd, off_t at, off_t n, int advice) {
  return Fails("posix_fadvise") ? error : (int)-syscall(SYS_fadvise64, fd, at, n, advice);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* data) {
  if (Fails("pthread_create")) return error;
  return NEXT(int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*), "pthread_create")(
      thread, attributes, start, data);
}

extern void* __libc_malloc(size_t n);
extern void* __libc_calloc(size_t n, size_t size);
extern void* __libc_realloc(void* data, size_t n);
extern void* __libc_memalign(size_t alignment, size_t n);
void* malloc(size_t n) { return Fails("malloc") ? NULL : __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return Fails("malloc") ? NULL : __libc_calloc(n, size); }
void* realloc(void* data, size_t n) { return Fails("malloc") ? NULL : __libc_realloc(data, n); }
void* memalign(size_t alignment, size_t n) {
  return Fails("malloc") ? NULL : __libc_memalign(alignment, n);
}
void* aligned_alloc(size_t alignment, size_t n) { return memalign(alignment, n); }
int posix_memalign(void** out, size_t alignment, size_t n) {
  void* data = memalign(alignment, n);
  if (data == NULL) return ENOMEM;
  *out = data;
  return 0;
}
