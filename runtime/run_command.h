// `quire run`.
#ifndef QUIRE_RUNTIME_RUN_COMMAND_H_
#define QUIRE_RUNTIME_RUN_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int RunCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_RUNTIME_RUN_COMMAND_H_
