// A file that grows without a name and gets one when it is whole.
#ifndef QUIRE_FORMAT_NEW_FILE_H_
#define QUIRE_FORMAT_NEW_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "format/unfinished.h"

namespace quire {

// Destroyed before GiveName succeeded, it leaves nothing behind; nor does a killed process, where
// the file system has unnamed temporary files (O_TMPFILE). Elsewhere, and for the moment in which a
// file is replaced, it has a temporary name. WriteAt is thread-safe.
class NewFile {
 public:
  // In the folder of `path`. AlreadyExists where `path` exists and not `overwrite`; InvalidArgument
  // where it is something other than a file.
  static absl::StatusOr<std::unique_ptr<NewFile>> Create(const std::string& path, bool overwrite);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }

  // Room for all of it now, or ResourceExhausted before any work. Where the file system cannot
  // promise, the file is only made longer.
  absl::Status Reserve(int64_t bytes);
  // ResourceExhausted: no space. DataLoss: the disk failed.
  absl::Status WriteAt(int64_t offset, const void* data, int64_t bytes);
  // All bytes to disk. A failed sync is final: the kernel may have dropped the pages it could not
  // write.
  absl::Status Sync();
  // Gives the file its name, in place of a file that has it where `overwrite`, and syncs the
  // folder. AlreadyExists where another got the name meanwhile.
  absl::Status GiveName();

 private:
  NewFile(const std::string& path, bool overwrite) : path_(path), overwrite_(overwrite) {}
  absl::Status Open();
  absl::Status OpenNamed();
  absl::Status Link();
  absl::Status Error(const char* what) const;
  void SetTemporary(std::string name);

  const std::string path_;
  const bool overwrite_;
  std::string temporary_;  // the name the file has meanwhile; empty: none
  Unfinished unfinished_;
  int fd_ = -1;
};

}  // namespace quire

#endif  // QUIRE_FORMAT_NEW_FILE_H_
