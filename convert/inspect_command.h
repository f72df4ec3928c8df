// `quire inspect`.
#ifndef QUIRE_CONVERT_INSPECT_COMMAND_H_
#define QUIRE_CONVERT_INSPECT_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int InspectCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_CONVERT_INSPECT_COMMAND_H_
