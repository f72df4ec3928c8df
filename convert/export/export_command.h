// The export verb.
#ifndef QUIRE_CONVERT_EXPORT_EXPORT_COMMAND_H_
#define QUIRE_CONVERT_EXPORT_EXPORT_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int ExportCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_EXPORT_COMMAND_H_
