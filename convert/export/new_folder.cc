#include "convert/export/new_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

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

// The names in a folder; empty where there is none.
std::vector<std::string> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  if (DIR* entries = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(entries)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    closedir(entries);
  }
  return names;
}

absl::Status CheckReplaceable(const std::string& path) {
  for (const std::string& name : NamesIn(path)) {
    struct stat info;
    const bool file =
        lstat(absl::StrCat(path, "/", name).c_str(), &info) == 0 && S_ISREG(info.st_mode);
    const bool own =
        std::any_of(std::begin(kOwnFiles), std::end(kOwnFiles),
                    [&](const char* pattern) { return fnmatch(pattern, name.c_str(), 0) == 0; });
    if (file && own) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": holds \"", name,
        "\", which an export does not write: it is not replaced; name another folder"));
  }
  return absl::OkStatus();
}

void Remove(const std::string& folder) {
  for (const std::string& name : NamesIn(folder)) unlink(absl::StrCat(folder, "/", name).c_str());
  rmdir(folder.c_str());
}

void SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
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
    if (absl::Status status = CheckReplaceable(path); !status.ok()) return status;
  }
  std::unique_ptr<NewFolder> folder(new NewFolder(path));
  std::string temporary = absl::StrCat(path, ".XXXXXX");
  if (mkdtemp(temporary.data()) == nullptr)
    return ErrnoStatus(errno, absl::StrCat(path, ": cannot create a folder"));
  folder->temporary_ = std::move(temporary);
  const mode_t mask = umask(0);
  umask(mask);
  chmod(folder->temporary_.c_str(), 0777 & ~mask);
  return folder;
}

NewFolder::~NewFolder() {
  if (!temporary_.empty()) Remove(temporary_);
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

absl::Status NewFolder::GiveName() {
  if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) == 0) {
    temporary_.clear();
  } else if (errno == EEXIST) {
    // The old folder goes where the new one grew, and is removed with it: look once more at it.
    if (absl::Status status = CheckReplaceable(path_); !status.ok()) return status;
    if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0)
      return ErrnoStatus(errno, absl::StrCat(path_, ": cannot replace the folder"));
  } else if (errno != EINVAL || rename(temporary_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat(path_, ": cannot give the folder its name"));
  } else {
    temporary_.clear();
  }
  SyncFolder(FolderOf(path_ + "/.."));
  return absl::OkStatus();
}

}  // namespace quire
