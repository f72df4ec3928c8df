// Measuring what a model's matrices multiply.
#ifndef QUIRE_QUANTIZE_CALIBRATE_H_
#define QUIRE_QUANTIZE_CALIBRATE_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/session.h"

namespace quire {

struct CalibrateOptions {
  std::string path;
  bool overwrite = false;
  bool moments = false;  // second moments too
  int64_t memory_budget = 0;
};

// Runs sequences of tokens (CalibrationTokens) through the session's model and writes a calibration
// file. Hidden states, 8 bytes x hidden_dim for each token, are meanwhile in the file
// path.unfinished; memory beside them stays under the budget: ResourceExhausted, with how much it
// takes, where that is too little. FailedPrecondition where an input is not finite. `progress`
// hears what part is done, 0 to 1.
absl::Status Calibrate(Session& session, absl::Span<const int32_t> tokens,
                       const CalibrateOptions& options,
                       absl::FunctionRef<void(double part)> progress);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_CALIBRATE_H_
