// quire calibrate MODEL -f TEXT -o FILE
#ifndef QUIRE_QUANTIZE_CALIBRATE_COMMAND_H_
#define QUIRE_QUANTIZE_CALIBRATE_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int CalibrateCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_CALIBRATE_COMMAND_H_
