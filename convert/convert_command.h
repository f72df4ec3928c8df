// `quire convert`.
#ifndef QUIRE_CONVERT_CONVERT_COMMAND_H_
#define QUIRE_CONVERT_CONVERT_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int ConvertCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_CONVERT_CONVERT_COMMAND_H_
