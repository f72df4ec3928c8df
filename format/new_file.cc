#include "format/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/file.h"

namespace quire {
namespace {

constexpr char kTemporary[] = ".new";

}  // namespace

void NewFile::SetTemporary(std::string name) {
  temporary_ = std::move(name);
  temporary_.empty() ? unfinished_.Clear() : unfinished_.Set(temporary_);
}

absl::StatusOr<std::unique_ptr<NewFile>> NewFile::Create(const std::string& path, bool overwrite) {
  struct stat existing;
  const bool exists = lstat(path.c_str(), &existing) == 0;
  if (path.empty() || (exists && !S_ISREG(existing.st_mode) && !S_ISLNK(existing.st_mode))) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\": not the name of a file; name one, such as model.quire"));
  }
  if (!overwrite && exists) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": exists; --force replaces it"));
  }
  std::unique_ptr<NewFile> file(new NewFile(path, overwrite));
  absl::Status status = file->Open();
  if (!status.ok()) return status;
  return file;
}

NewFile::~NewFile() {
  if (fd_ >= 0) close(fd_);
  if (temporary_.empty()) return;
  unlink(temporary_.c_str());
  SetTemporary("");
}

absl::Status NewFile::Error(const char* what) const {
  return ErrnoStatus(errno, absl::StrCat(path_, ": ", what));
}

// An unnamed file, or a named one where the file system has no such thing.
absl::Status NewFile::Open() {
  const std::string folder = FolderOf(path_);
  fd_ = TEMP_FAILURE_RETRY(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666));
  if (fd_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
    return OpenNamed();
  }
  return fd_ < 0 ? ErrnoStatus(errno, absl::StrCat(path_, ": cannot create a file in ", folder))
                 : absl::OkStatus();
}

// One name for every attempt, so that what killed processes leave does not add up; locked, so that
// two processes do not write one file.
absl::Status NewFile::OpenNamed() {
  std::string name = absl::StrCat(path_, kTemporary);
  unfinished_.Hold();
  while (true) {
    fd_ = TEMP_FAILURE_RETRY(open(name.c_str(), O_CREAT | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0666));
    if (fd_ < 0) return Error("cannot create a file beside it");
    if (!LockForThisProcess(fd_)) {
      return absl::FailedPreconditionError(
          absl::StrCat(name, ": another process is writing it; wait for its end"));
    }
    struct stat opened, named;
    if (fstat(fd_, &opened) == 0 && stat(name.c_str(), &named) == 0 &&
        opened.st_ino == named.st_ino) {
      break;
    }
    close(fd_);  // its writer has named or removed it meanwhile
  }
  SetTemporary(std::move(name));
  return TEMP_FAILURE_RETRY(ftruncate(fd_, 0)) == 0 ? absl::OkStatus()
                                                    : Error("cannot empty what was left beside it");
}

absl::Status NewFile::Reserve(int64_t bytes) {
  int result = TEMP_FAILURE_RETRY(fallocate(fd_, 0, 0, bytes));
  if (result != 0 && errno != ENOSPC && errno != EDQUOT && errno != EFBIG) {
    result = TEMP_FAILURE_RETRY(ftruncate(fd_, bytes));
  }
  if (result == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat(path_, ": no room for ", bytes, " bytes"));
}

absl::Status NewFile::WriteAt(int64_t offset, const void* data, int64_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = pwrite(fd_, p, bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error("writing failed, nothing is left behind");
    if (n == 0)
      return absl::ResourceExhaustedError(absl::StrCat(path_, ": the disk takes no more bytes"));
    p += n;
    offset += n;
    bytes -= n;
  }
  return absl::OkStatus();
}

absl::Status NewFile::Sync() {
  return TEMP_FAILURE_RETRY(fsync(fd_)) == 0 ? absl::OkStatus() : Error("syncing failed");
}

absl::Status NewFile::Link() {
  const std::string open_file = absl::StrCat("/proc/self/fd/", fd_);
  if (!overwrite_) {
    int result = temporary_.empty() ? linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, path_.c_str(),
                                             AT_SYMLINK_FOLLOW)
                                    : link(temporary_.c_str(), path_.c_str());
    if (result != 0 && errno != EEXIST && !temporary_.empty()) {
      // File systems without links (FAT) have this.
      result = renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
      if (result == 0) SetTemporary("");
    }
    if (result == 0) return absl::OkStatus();
    if (errno == EEXIST) {
      return absl::AlreadyExistsError(absl::StrCat(path_, ": exists; --force replaces it"));
    }
    return Error("cannot give the file its name");
  }
  if (temporary_.empty()) {
    // A link cannot replace a file, a rename can: give the file a name of its own first.
    // One name for all processes, as above: another's whole file may be met under it, or be given
    // the final name by us.
    const std::string name = absl::StrCat(path_, kTemporary);
    constexpr int kAttempts = 100;
    unfinished_.Hold();
    temporary_ = name;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      if (linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
        if (errno != EEXIST || (unlink(name.c_str()) != 0 && errno != ENOENT))
          return Error("cannot give the file its name");
        continue;
      }
      if (rename(name.c_str(), path_.c_str()) != 0 && errno != ENOENT)
        return Error("cannot rename over it");
      struct stat mine, named;
      if (fstat(fd_, &mine) == 0 && stat(path_.c_str(), &named) == 0 && mine.st_ino == named.st_ino)
        break;
    }
  } else if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return Error("cannot rename over it");
  }
  SetTemporary("");
  return absl::OkStatus();
}

absl::Status NewFile::GiveName() {
  absl::Status status = Link();
  return status.ok() ? SyncFolderOf(path_) : status;
}

}  // namespace quire
