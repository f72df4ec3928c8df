#include "format/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quire {

absl::Status ErrnoStatus(int error_number, const std::string& what) {
  const std::string message = absl::StrCat(what, ": ", std::strerror(error_number));
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EXDEV:
    case EROFS:
      return absl::FailedPreconditionError(message);
    case EIO:
      return absl::DataLossError(message);
    case ELOOP:
    case EISDIR:
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnknownError(message);
  }
}

bool IsFolder(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string FolderOf(const std::string& path) {
  if (IsFolder(path)) return absl::EndsWith(path, "/") ? path : path + "/";
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

absl::Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "./" : path.substr(0, slash + 1);
  const int fd = TEMP_FAILURE_RETRY(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const bool synced = fd >= 0 && TEMP_FAILURE_RETRY(fsync(fd)) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (synced || error == EACCES || error == EINVAL) return absl::OkStatus();
  return ErrnoStatus(error, absl::StrCat(path, ": is written, but its folder cannot be synced"));
}

absl::Status CheckNotSameFile(const std::string& input, const std::string& output) {
  struct stat a, b;
  if (stat(input.c_str(), &a) == 0 && stat(output.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
      a.st_ino == b.st_ino) {
    return absl::FailedPreconditionError(
        absl::StrCat(output, ": is the input itself (", input, "); give the output another name"));
  }
  return absl::OkStatus();
}

absl::StatusOr<File> File::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int fd = TEMP_FAILURE_RETRY(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat(path, ": cannot open"));
  File file(path, fd, 0);
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, absl::StrCat(path, ": cannot stat"));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", S_ISDIR(info.st_mode) ? "a folder" : "not a regular file", ", wanted a file"));
  }
  file.size_ = info.st_size;
  return file;
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

absl::Status File::ReadAt(int64_t offset, absl::Span<uint8_t> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        pread(fd_, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (n > 0) {
      done += n;
    } else if (n == 0) {
      return absl::DataLossError(
          absl::StrCat(path_, ": the file ends at byte ", offset + static_cast<int64_t>(done),
                       ", wanted bytes ", offset, " to ", offset + static_cast<int64_t>(out.size()),
                       " (cut or still downloading?)"));
    } else if (errno != EINTR) {
      return absl::DataLossError(absl::StrCat(path_, ": reading at byte ",
                                              offset + static_cast<int64_t>(done), ": ",
                                              std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t limit) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  if (file->size() > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": ", file->size(), " bytes, the limit is ", limit));
  }
  std::string text(file->size(), '\0');
  absl::Status read =
      file->ReadAt(0, absl::MakeSpan(reinterpret_cast<uint8_t*>(text.data()), text.size()));
  if (!read.ok()) return read;
  return text;
}

absl::StatusOr<std::string> ReadStream(const std::string& path, int64_t limit) {
  const int fd = TEMP_FAILURE_RETRY(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat(path, ": cannot open"));
  absl::StatusOr<std::string> text = ReadStream(fd, path, limit);
  close(fd);
  return text;
}

absl::StatusOr<std::string> ReadStream(int fd, const std::string& name, int64_t limit) {
  std::string text;
  char buffer[16384];
  while (true) {
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n == 0) return text;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, absl::StrCat(name, ": cannot read"));
    text.append(buffer, static_cast<size_t>(n));
    if (static_cast<int64_t>(text.size()) > limit) {
      return absl::ResourceExhaustedError(
          absl::StrCat(name, ": more than ", limit, " bytes, which is the limit"));
    }
  }
}

}  // namespace quire
