// A folder of files that is whole or absent.
#ifndef QUIRE_CONVERT_EXPORT_NEW_FOLDER_H_
#define QUIRE_CONVERT_EXPORT_NEW_FOLDER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

// Grows beside its final place, under the name PATH.XXXXXX. Destroyed before GiveName succeeded, it
// leaves nothing behind; a killed process leaves that folder.
class NewFolder {
 public:
  // AlreadyExists where `path` exists and not `overwrite`. FailedPrecondition where it is no
  // folder, or holds a file that an export does not write: such a folder is never replaced.
  static absl::StatusOr<std::unique_ptr<NewFolder>> Create(const std::string& path, bool overwrite);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  // Where a file of this name grows.
  std::string PathOf(absl::string_view name) const;
  // Writes a whole small file.
  absl::Status Write(absl::string_view name, absl::string_view content);
  // Gives the folder its name, in place of one that has it, and syncs it and the folder it is in.
  absl::Status GiveName();

 private:
  explicit NewFolder(std::string path) : path_(std::move(path)) {}

  const std::string path_;  // without a final slash
  std::string temporary_;   // empty: nothing to remove
};

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_NEW_FOLDER_H_
