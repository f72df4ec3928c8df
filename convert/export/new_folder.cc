#include "convert/export/new_folder.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/file.h"
#include "format/new_file.h"

namespace quire {
namespace {

// What an export writes, as patterns of fnmatch(3).
constexpr const char* kOwnFiles[] = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
};

constexpr char kNewFile[] = "*.new";  // what a killed process may leave (NewFile)

int OpenFolder(const std::string& path) {
  return TEMP_FAILURE_RETRY(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

bool IsOwn(int folder, const char* name) {
  struct stat info;
  const auto fits = [&](const char* pattern) { return fnmatch(pattern, name, 0) == 0; };
  return fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode) &&
         (fits(kNewFile) || std::any_of(std::begin(kOwnFiles), std::end(kOwnFiles), fits));
}

// Whether all in it may be deleted.
absl::Status CheckOwn(int folder, const std::string& path) {
  std::string foreign;
  const bool whole = ForEachNameIn(folder, [&](const char* name) {
    if (foreign.empty() && !IsOwn(folder, name)) foreign = name;
  });
  if (!whole) return ErrnoStatus(errno, absl::StrCat(path, ": cannot list the folder"));
  if (foreign.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": holds \"", foreign,
                   "\", which an export does not write: it is not replaced; name another folder"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<NewFolder>> NewFolder::Create(const std::string& given,
                                                             bool overwrite) {
  std::string path = given;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  struct stat existing;
  if (path.empty() || path == "/") {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", given, "\": not the name of a new folder"));
  }
  if (lstat(path.c_str(), &existing) == 0) {
    if (!S_ISDIR(existing.st_mode))
      return absl::FailedPreconditionError(absl::StrCat(path, ": exists and is not a folder"));
    if (!overwrite)
      return absl::AlreadyExistsError(absl::StrCat(path, ": exists; --force replaces it"));
    const int old = OpenFolder(path);
    if (old < 0) return ErrnoStatus(errno, absl::StrCat(path, ": cannot open the folder"));
    const absl::Status status = CheckOwn(old, path);
    close(old);
    if (!status.ok()) return status;
  }
  std::unique_ptr<NewFolder> folder(new NewFolder(path, overwrite));
  if (absl::Status status = folder->Open(); !status.ok()) return status;
  return folder;
}

// One name for every attempt, so that what killed processes leave does not add up; locked, so that
// two processes do not write one folder.
absl::Status NewFolder::Open() {
  const auto error = [&](const char* what) {
    return ErrnoStatus(errno, absl::StrCat(path_, ": cannot ", what, " the folder ", temporary_));
  };
  unfinished_.Hold();
  while (true) {
    const bool made = TEMP_FAILURE_RETRY(mkdir(temporary_.c_str(), 0777)) == 0;
    if (!made && errno != EEXIST) return error("create");
    const int folder = OpenFolder(temporary_);
    if (folder < 0 && errno == ENOENT) continue;  // its writer has just removed or named it
    if (folder < 0) {
      const absl::Status status = error("open");
      if (made) rmdir(temporary_.c_str());
      return status;
    }
    struct stat opened, named;
    absl::Status status;
    if (!LockForThisProcess(folder)) {
      status = absl::FailedPreconditionError(
          absl::StrCat(temporary_, ": another process is writing it; wait for its end"));
    } else if (fstat(folder, &opened) != 0 || lstat(temporary_.c_str(), &named) != 0 ||
               opened.st_ino != named.st_ino) {
      close(folder);
      continue;
    } else {
      status = CheckOwn(folder, temporary_);
    }
    if (!status.ok()) {
      close(folder);
      return status;
    }
    RemoveFilesIn(folder);
    folder_ = folder;
    unfinished_.Set(temporary_);
    return absl::OkStatus();
  }
}

NewFolder::~NewFolder() {
  if (folder_ < 0) return;
  RemoveFilesIn(folder_);
  rmdir(temporary_.c_str());
  close(folder_);
}

std::string NewFolder::PathOf(absl::string_view name) const {
  return absl::StrCat(temporary_, "/", name);
}

absl::Status NewFolder::Write(absl::string_view name, absl::string_view content) {
  absl::StatusOr<std::unique_ptr<NewFile>> file = NewFile::Create(PathOf(name), false);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->WriteAt(0, content.data(), static_cast<int64_t>(content.size()));
  if (status.ok()) status = (*file)->Sync();
  if (status.ok()) status = (*file)->GiveName();
  return status;
}

// The old folder goes where the new one grew, and is removed there.
absl::Status NewFolder::Replace() {
  const int old = OpenFolder(path_);
  if (old < 0) return ErrnoStatus(errno, absl::StrCat(path_, ": cannot open the folder"));
  LockForThisProcess(old);                     // as soon as it is PATH.new
  absl::Status status = CheckOwn(old, path_);  // once more
  if (status.ok() &&
      renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
    status = ErrnoStatus(errno, absl::StrCat(path_, ": cannot replace the folder"));
  }
  if (status.ok()) unfinished_.Set(temporary_);
  close(status.ok() ? std::exchange(folder_, old) : old);
  return status;
}

absl::Status NewFolder::GiveName() {
  unfinished_.Hold();  // or parts of it might be removed, and the others named
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST && !overwrite_)
      return absl::AlreadyExistsError(absl::StrCat(path_, ": exists; --force replaces it"));
    if (errno == EEXIST) {
      if (absl::Status status = Replace(); !status.ok()) return status;
      return SyncFolderOf(path_);
    }
    // File systems without this way of renaming take the plain one, which replaces no folder that
    // holds anything.
    if (errno != EINVAL || rename(temporary_.c_str(), path_.c_str()) != 0)
      return ErrnoStatus(errno, absl::StrCat(path_, ": cannot give the folder its name"));
  }
  unfinished_.Clear();
  close(std::exchange(folder_, -1));
  return SyncFolderOf(path_);
}

}  // namespace quire
