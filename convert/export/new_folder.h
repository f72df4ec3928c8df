// A folder of files that is whole or absent.
#ifndef QUIRE_CONVERT_EXPORT_NEW_FOLDER_H_
#define QUIRE_CONVERT_EXPORT_NEW_FOLDER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "format/unfinished.h"

namespace quire {

// Grows beside its final place, under the name PATH.new, locked. Destroyed before GiveName
// succeeded, it leaves nothing behind; a killed process leaves that folder, and the next one takes
// it over.
class NewFolder {
 public:
  // AlreadyExists where `path` exists and not `overwrite`. FailedPrecondition where it is no
  // folder, or holds a file that an export does not write: such a folder is never replaced. The
  // same of PATH.new; FailedPrecondition also where another process writes there.
  static absl::StatusOr<std::unique_ptr<NewFolder>> Create(const std::string& path, bool overwrite);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  // Where a file of this name grows.
  std::string PathOf(absl::string_view name) const;
  // Writes a whole small file.
  absl::Status Write(absl::string_view name, absl::string_view content);
  // Gives the folder its name, in place of one that has it where `overwrite`, and syncs the folder
  // it is in.
  absl::Status GiveName();

 private:
  NewFolder(std::string path, bool overwrite)
      : path_(std::move(path)), temporary_(path_ + ".new"), overwrite_(overwrite) {}
  absl::Status Open();
  absl::Status Replace();

  const std::string path_;  // without a final slash
  const std::string temporary_;
  const bool overwrite_;
  int folder_ = -1;  // what is to be removed; below 0: nothing
  Unfinished unfinished_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_NEW_FOLDER_H_
