// From one .quire file to another: decode, encode, write, one tensor at a time.
#ifndef QUIRE_QUANTIZE_QUANTIZE_FILE_H_
#define QUIRE_QUANTIZE_QUANTIZE_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "format/manifest.pb.h"
#include "format/model_file.h"
#include "format/thread_pool.h"
#include "quantize/encode_tensor.h"
#include "quantize/scheme.h"

namespace quire {

// "layers.*.w_down=q8": the encoding of every matrix whose name the pattern (of fnmatch(3))
// matches.
struct KeepRule {
  std::string pattern;
  Encoding encoding;
};
// InvalidArgument where it is not PATTERN=TYPE with a known type.
absl::StatusOr<KeepRule> ParseKeepRule(absl::string_view text);

// The manifest of `source` in other encodings: those of the rules, the last that matches, and
// of `scheme` for the others, whose budget the former count towards. Vectors and layouts stay.
// InvalidArgument for a rule that matches no matrix.
absl::StatusOr<pb::Manifest> PlanQuantization(const ModelFile& source, const Scheme& scheme,
                                              absl::Span<const KeepRule> rules);

struct QuantizedTensor {
  // sqrt(sum (stored - source)^2 / sum source^2); 0 of a tensor whose bytes are carried over.
  double relative_rms_error = 0;
  bool carried = false;  // it already had the encoding
};

// Carries a plan out: writes `path`, its tensors in the order of the plan. Peak anonymous memory
// stays under memory_budget bytes beyond what the process has. `progress` hears of source bytes
// done, from this thread. DataLoss where a tensor's checksum differs; FailedPrecondition where a
// weight is NaN or infinite. On any error there is no output. `encode` encodes what does not keep
// its bytes, called from this thread, in the order of the plan.
absl::StatusOr<std::vector<QuantizedTensor>> QuantizeFile(
    const ModelFile& source, const pb::Manifest& plan, const std::string& path, bool overwrite,
    int64_t memory_budget, ThreadPool& pool, absl::FunctionRef<void(int64_t done_bytes)> progress,
    const EncodeNamed& encode = EncodePlainly);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_QUANTIZE_FILE_H_
