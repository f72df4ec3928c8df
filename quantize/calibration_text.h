// The text that a model is calibrated with where the user gives none.
#ifndef QUIRE_QUANTIZE_CALIBRATION_TEXT_H_
#define QUIRE_QUANTIZE_CALIBRATION_TEXT_H_

#include "absl/strings/string_view.h"

namespace quire {

// About 200 KB of English prose, verse, dialogue, questions and answers, tables, and source code;
// docs/quantization.md says where it is from.
absl::string_view CalibrationText();

}  // namespace quire

#endif  // QUIRE_QUANTIZE_CALIBRATION_TEXT_H_
