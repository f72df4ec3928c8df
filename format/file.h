// Reading regular files by offset, with errors that say which file, where, and what to do.
#ifndef QUIRE_FORMAT_FILE_H_
#define QUIRE_FORMAT_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quire {

// An open, read-only regular file. Move-only; thread-safe (reads are positioned).
class File {
 public:
  // NotFound, PermissionDenied, or InvalidArgument for anything but a regular file (a FIFO or
  // device is never waited for). Symbolic links are followed.
  static absl::StatusOr<File> Open(const std::string& path);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }
  int64_t size() const { return size_; }  // when it was opened

  // Fills `out` from `offset`. DataLoss where the file ends before, or cannot be read; names the
  // offset.
  absl::Status ReadAt(int64_t offset, absl::Span<uint8_t> out) const;

 private:
  File(std::string path, int fd, int64_t size) : path_(std::move(path)), fd_(fd), size_(size) {}

  std::string path_;
  int fd_;
  int64_t size_;
};

// The whole of a file of at most `limit` bytes. ResourceExhausted beyond.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t limit);

// What can be read from a pipe, a device or a file whose size nobody knows beforehand, to its end;
// waits for it. Errors as above; `name` is for messages.
absl::StatusOr<std::string> ReadStream(const std::string& path, int64_t limit);
absl::StatusOr<std::string> ReadStream(int fd, const std::string& name, int64_t limit);

bool IsFolder(const std::string& path);
// `path` itself where it is a folder, else the folder it is in; with a final slash.
std::string FolderOf(const std::string& path);

// Syncs the folder that `path` is in, so that a new name in it outlives a loss of power. No error
// of file systems that cannot do it.
absl::Status SyncFolderOf(const std::string& path);

// FailedPrecondition where both paths are one file (also through links): writing would replace what
// is read.
absl::Status CheckNotSameFile(const std::string& input, const std::string& output);

// "opening x: No such file or directory" with the status code that fits errno (ENOENT NotFound,
// ENOSPC, EDQUOT, EFBIG, ENOMEM, EMFILE ResourceExhausted, EACCES, EXDEV FailedPrecondition, EIO
// DataLoss, else Unknown).
absl::Status ErrnoStatus(int error_number, const std::string& what);

}  // namespace quire

#endif  // QUIRE_FORMAT_FILE_H_
