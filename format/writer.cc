#include "format/writer.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/file.h"
#include "format/header.h"
#include "format/manifest_check.h"
#include "format/model_file.h"

namespace quire {
namespace {

// Serialized size does not depend on offsets and checksums: they are fixed64 and always present.
int64_t ManifestBytes(const pb::Manifest& manifest) {
  return static_cast<int64_t>(manifest.ByteSizeLong());
}

}  // namespace

absl::StatusOr<int64_t> PlanFile(int64_t tokenizer_bytes, pb::Manifest* manifest) {
  absl::Status status = CheckManifest(*manifest);
  if (!status.ok()) return status;
  for (pb::TensorEntry& tensor : *manifest->mutable_tensors()) {
    tensor.set_offset(1);  // proto3 leaves zeros out: no offset or size of ours is zero
    tensor.set_bytes(1);
    tensor.set_xxh3(0);
  }
  if (tokenizer_bytes > kMaxTokenizerBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("tokenizer of ", tokenizer_bytes,
                                                     " bytes, the limit is ", kMaxTokenizerBytes));
  }
  manifest->clear_tokenizer();
  if (tokenizer_bytes > 0) {
    manifest->mutable_tokenizer()->set_offset(1);
    manifest->mutable_tokenizer()->set_bytes(1);
    manifest->mutable_tokenizer()->set_xxh3(0);
  }
  const int64_t manifest_bytes = ManifestBytes(*manifest);
  if (manifest_bytes > kMaxManifestBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("manifest of ", manifest_bytes, " bytes, the limit is ", kMaxManifestBytes));
  }
  return PlanOffsets(manifest, manifest_bytes, tokenizer_bytes);
}

struct FileWriter::Impl {
  std::string path;
  std::string temporary;  // the name the file has meanwhile; empty: none
  bool overwrite = false;
  int fd = -1;
  pb::Manifest manifest;
  std::string tokenizer;
  int64_t file_bytes = 0;
  int tensor = 0;        // the one that grows
  int64_t appended = 0;  // bytes of it
  int64_t written_back = 0;
  XXH3_state_t* state = XXH3_createState();

  ~Impl() {
    if (fd >= 0) close(fd);
    if (!temporary.empty()) unlink(temporary.c_str());
    XXH3_freeState(state);
  }

  absl::Status Error(const char* what) const {
    return ErrnoStatus(errno, absl::StrCat(path, ": ", what));
  }

  absl::Status WriteAt(int64_t offset, const void* data, int64_t bytes) {
    const char* p = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t n = pwrite(fd, p, bytes, offset);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Error("writing failed, nothing is left behind");
      if (n == 0)
        return absl::ResourceExhaustedError(absl::StrCat(path, ": the disk takes no more bytes"));
      p += n;
      offset += n;
      bytes -= n;
    }
    return absl::OkStatus();
  }

  // An unnamed file in the folder of `path`, or a named one where the file system has no such
  // thing.
  absl::Status OpenTemporary() {
    const std::string folder = FolderOf(path);
    fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
      temporary = absl::StrCat(path, ".XXXXXX");
      fd = mkostemp(temporary.data(), O_CLOEXEC);
      if (fd < 0) {
        temporary.clear();
      } else {
        const mode_t mask = umask(0);
        umask(mask);
        fchmod(fd, 0666 & ~mask);
      }
    }
    return fd < 0 ? ErrnoStatus(errno, absl::StrCat(path, ": cannot create a file in ", folder))
                  : absl::OkStatus();
  }

  absl::Status GiveName() {
    if (!overwrite) {
      int result = temporary.empty() ? linkat(AT_FDCWD, absl::StrCat("/proc/self/fd/", fd).c_str(),
                                              AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW)
                                     : link(temporary.c_str(), path.c_str());
      if (result != 0 && errno != EEXIST && !temporary.empty()) {
        // File systems without links (FAT) have this.
        result = renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE);
        if (result == 0) temporary.clear();
      }
      if (result == 0) return absl::OkStatus();
      if (errno == EEXIST) {
        return absl::AlreadyExistsError(absl::StrCat(path, ": exists; --force replaces it"));
      }
      return Error("cannot give the file its name");
    }
    if (temporary.empty()) {
      // A link cannot replace a file, a rename can: give the file a name of its own first.
      const std::string name = absl::StrCat(path, ".", getpid(), ".new");
      unlink(name.c_str());
      if (linkat(AT_FDCWD, absl::StrCat("/proc/self/fd/", fd).c_str(), AT_FDCWD, name.c_str(),
                 AT_SYMLINK_FOLLOW) != 0) {
        return Error("cannot give the file its name");
      }
      temporary = name;
    }
    if (rename(temporary.c_str(), path.c_str()) != 0) return Error("cannot rename over it");
    temporary.clear();
    return absl::OkStatus();
  }
};

FileWriter::FileWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FileWriter::~FileWriter() = default;
const pb::Manifest& FileWriter::manifest() const { return impl_->manifest; }

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Create(const std::string& path,
                                                               pb::Manifest manifest,
                                                               std::string tokenizer,
                                                               bool overwrite) {
  struct stat existing;
  const bool exists = lstat(path.c_str(), &existing) == 0;
  if (path.empty() || (exists && !S_ISREG(existing.st_mode) && !S_ISLNK(existing.st_mode))) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\": not the name of a file; name one, such as model.quire"));
  }
  if (!overwrite && exists) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": exists; --force replaces it"));
  }
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->overwrite = overwrite;
  absl::StatusOr<int64_t> file_bytes = PlanFile(static_cast<int64_t>(tokenizer.size()), &manifest);
  if (!file_bytes.ok()) {
    return absl::Status(file_bytes.status().code(),
                        absl::StrCat(path, ": ", file_bytes.status().message()));
  }
  impl->file_bytes = *file_bytes;
  impl->manifest = std::move(manifest);
  impl->tokenizer = std::move(tokenizer);
  absl::Status status = impl->OpenTemporary();
  if (!status.ok()) return status;
  // Room for all of it now, or an error before any work. Where the file system cannot promise, it
  // is only made longer.
  int result;
  do {
    result = fallocate(impl->fd, 0, 0, impl->file_bytes);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != ENOSPC && errno != EDQUOT && errno != EFBIG) {
    result = ftruncate(impl->fd, impl->file_bytes);
  }
  if (result != 0) {
    return ErrnoStatus(errno, absl::StrCat(path, ": no room for ", impl->file_bytes, " bytes"));
  }
  XXH3_64bits_reset(impl->state);
  return std::unique_ptr<FileWriter>(new FileWriter(std::move(impl)));
}

absl::Status FileWriter::Append(absl::Span<const uint8_t> bytes) {
  Impl& w = *impl_;
  while (!bytes.empty()) {
    if (w.tensor == w.manifest.tensors_size()) {
      return absl::InternalError(absl::StrCat(w.path, ": more tensor bytes than planned"));
    }
    pb::TensorEntry& entry = *w.manifest.mutable_tensors(w.tensor);
    const int64_t n =
        std::min<int64_t>(bytes.size(), static_cast<int64_t>(entry.bytes()) - w.appended);
    XXH3_64bits_update(w.state, bytes.data(), n);
    const int64_t offset = static_cast<int64_t>(entry.offset()) + w.appended;
    absl::Status status = w.WriteAt(offset, bytes.data(), n);
    if (!status.ok()) return status;
    // Start writing to disk now, so that the sync at the end has little left to wait for.
    constexpr int64_t kWriteBack = 32 << 20;
    if (offset + n - w.written_back >= kWriteBack) {
      sync_file_range(w.fd, w.written_back, offset + n - w.written_back, SYNC_FILE_RANGE_WRITE);
      w.written_back = offset + n;
    }
    bytes.remove_prefix(n);
    w.appended += n;
    if (w.appended == static_cast<int64_t>(entry.bytes())) {
      entry.set_xxh3(XXH3_64bits_digest(w.state));
      XXH3_64bits_reset(w.state);
      w.appended = 0;
      ++w.tensor;
    }
  }
  return absl::OkStatus();
}

absl::Status FileWriter::Finish() {
  Impl& w = *impl_;
  if (w.tensor != w.manifest.tensors_size()) {
    return absl::InternalError(absl::StrCat(w.path, ": tensor ", w.tensor, " is not complete"));
  }
  absl::Status status;
  if (!w.tokenizer.empty()) {
    w.manifest.mutable_tokenizer()->set_xxh3(XXH3_64bits(w.tokenizer.data(), w.tokenizer.size()));
    status = w.WriteAt(static_cast<int64_t>(w.manifest.tokenizer().offset()), w.tokenizer.data(),
                       static_cast<int64_t>(w.tokenizer.size()));
    if (!status.ok()) return status;
  }
  const std::string manifest = w.manifest.SerializeAsString();
  status = w.WriteAt(kHeaderBytes, manifest.data(), static_cast<int64_t>(manifest.size()));
  if (!status.ok()) return status;
  Header header;
  header.manifest_bytes = static_cast<int64_t>(manifest.size());
  header.manifest_xxh3 = XXH3_64bits(manifest.data(), manifest.size());
  header.file_bytes = w.file_bytes;
  uint8_t bytes[kHeaderBytes];
  header.Serialize(bytes);
  status = w.WriteAt(0, bytes, kHeaderBytes);
  if (!status.ok()) return status;
  // A failed sync is final: the kernel may have dropped the pages it could not write.
  if (fsync(w.fd) != 0) return w.Error("syncing failed");
  status = ModelFile::Open(absl::StrCat("/proc/self/fd/", w.fd)).status();
  if (!status.ok())
    return absl::InternalError(
        absl::StrCat(w.path, ": what was written does not open: ", status.message()));
  status = w.GiveName();
  if (!status.ok()) return status;
  const int folder = open(FolderOf(w.path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);
    close(folder);
  }
  return absl::OkStatus();
}

}  // namespace quire
