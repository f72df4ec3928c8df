// Memory straight from the kernel: zero, counted to the byte, and costing nothing where it is not
// touched.
#ifndef QUIRE_RUNTIME_ANONYMOUS_MEMORY_H_
#define QUIRE_RUNTIME_ANONYMOUS_MEMORY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

// Zero-filled, page-aligned. Move-only; unmapped when destroyed.
class AnonymousMemory {
 public:
  // ResourceExhausted where the system refuses; the message names `what` and the size.
  static absl::StatusOr<AnonymousMemory> Map(const std::string& what, int64_t bytes);

  AnonymousMemory() = default;  // nothing
  AnonymousMemory(AnonymousMemory&& other) noexcept;
  AnonymousMemory& operator=(AnonymousMemory&& other) noexcept;
  ~AnonymousMemory();

  // From this byte on the kernel may touch huge pages at once. For what is touched front to back.
  void UseHugePages(int64_t from);

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Of them, those in pages that have been touched.
  int64_t ResidentBytes() const;

 private:
  AnonymousMemory(uint8_t* data, int64_t bytes) : data_(data), bytes_(bytes) {}

  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_ANONYMOUS_MEMORY_H_
