// The verb `quire quantize`: a .quire file's weights in fewer bits.
#ifndef QUIRE_QUANTIZE_QUANTIZE_COMMAND_H_
#define QUIRE_QUANTIZE_QUANTIZE_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

// `args`: after the verb. Returns the exit code.
int QuantizeCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_QUANTIZE_COMMAND_H_
