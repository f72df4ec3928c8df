// A cgroup that bounds the memory of the processes in it.
#ifndef QUIRE_RUNTIME_MEMORY_LIMIT_H_
#define QUIRE_RUNTIME_MEMORY_LIMIT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

// A new memory cgroup (version 1 or 2) below this process's own; removed when destroyed, when no
// process may be in it any more.
class MemoryLimit {
 public:
  // FailedPrecondition, saying what to do, where this user may not make one.
  static absl::StatusOr<std::unique_ptr<MemoryLimit>> Create(int64_t bytes);
  ~MemoryLimit();
  const std::string& folder() const { return folder_; }

 private:
  explicit MemoryLimit(std::string folder) : folder_(std::move(folder)) {}
  std::string folder_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_MEMORY_LIMIT_H_
