// What fuzz targets share.
#ifndef QUIRE_TESTS_FUZZ_FUZZ_FILE_H_
#define QUIRE_TESTS_FUZZ_FUZZ_FILE_H_

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace quire {

// Ends the process, as a finding, where what must hold does not.
inline void FuzzCheck(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// The path of a file in memory that holds the input. The same path each time.
inline std::string FuzzFile(const uint8_t* data, size_t size) {
  static const int fd = memfd_create("input", 0);
  FuzzCheck(fd >= 0 && ftruncate(fd, 0) == 0, "a file in memory");
  FuzzCheck(pwrite(fd, data, size, 0) == static_cast<ssize_t>(size), "a whole write");
  return "/proc/self/fd/" + std::to_string(fd);
}

}  // namespace quire

#endif  // QUIRE_TESTS_FUZZ_FUZZ_FILE_H_
