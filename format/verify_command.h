// `quire verify`.
#ifndef QUIRE_FORMAT_VERIFY_COMMAND_H_
#define QUIRE_FORMAT_VERIFY_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int VerifyCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_FORMAT_VERIFY_COMMAND_H_
