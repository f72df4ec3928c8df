#include "quantize/calibration_text.h"

// calibration_text.S
extern "C" const char quire_calibration_text[], quire_calibration_text_end[];

namespace quire {

absl::string_view CalibrationText() {
  return {quire_calibration_text,
          static_cast<size_t>(quire_calibration_text_end - quire_calibration_text)};
}

}  // namespace quire
