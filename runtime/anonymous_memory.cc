#include "runtime/anonymous_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quire {

absl::StatusOr<AnonymousMemory> AnonymousMemory::Map(const std::string& what, int64_t bytes) {
  if (bytes <= 0) return AnonymousMemory();
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the system refuses ", bytes, " bytes for the ", what, ": ", std::strerror(errno)));
  }
  // One touched byte shall cost one small page, not a huge one that the kernel has to zero first.
  madvise(data, bytes, MADV_NOHUGEPAGE);
  return AnonymousMemory(static_cast<uint8_t*>(data), bytes);
}

AnonymousMemory::AnonymousMemory(AnonymousMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

AnonymousMemory& AnonymousMemory::operator=(AnonymousMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

AnonymousMemory::~AnonymousMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

void AnonymousMemory::UseHugePages(int64_t from) {
  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  const int64_t first = (from + page_bytes - 1) / page_bytes * page_bytes;
  if (first < bytes_) madvise(data_ + first, bytes_ - first, MADV_HUGEPAGE);
}

int64_t AnonymousMemory::ResidentBytes() const {
  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  std::vector<uint8_t> pages((bytes_ + page_bytes - 1) / page_bytes);
  if (bytes_ == 0 || mincore(data_, bytes_, pages.data()) != 0) return 0;
  int64_t resident = 0;
  for (uint8_t page : pages) resident += page & 1;
  return resident * page_bytes;
}

}  // namespace quire
