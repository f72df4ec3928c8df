// `quire footprint`.
#ifndef QUIRE_RUNTIME_FOOTPRINT_COMMAND_H_
#define QUIRE_RUNTIME_FOOTPRINT_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

// args: after the verb. Returns the exit code.
int FootprintCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_COMMAND_H_
