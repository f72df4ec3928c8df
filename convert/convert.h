// From a checkpoint to a .quire file: source -> canonical names -> encodings -> encode -> write,
// one tensor at a time.
#ifndef QUIRE_CONVERT_CONVERT_H_
#define QUIRE_CONVERT_CONVERT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "convert/architecture.h"
#include "convert/tensor_source.h"
#include "format/manifest.pb.h"
#include "format/thread_pool.h"
#include "quantize/encode_tensor.h"
#include "quantize/scheme.h"

namespace quire {

struct ConvertOptions {
  std::string source;  // checkpoint file or folder
  // A scheme's name (quantize/scheme.h), or "source": each tensor keeps its own type. Empty: q4,
  // but source where most weights of the layers are 4-bit codes that are carried over bit for bit
  // and target_bits is 0.
  std::string type;
  double target_bits = 0;   // --target-bits, or 0: the scheme's own
  std::string config_file;  // --config
  std::string
      tokenizer;     // --tokenizer: a file or folder, "none", or empty: found beside the checkpoint
  std::string root;  // --root
};

// How one tensor goes from checkpoint to file.
struct TensorPlan {
  CanonicalTensor tensor;
  DType dtype;           // in the checkpoint
  bool carried = false;  // GGUF blocks carried over bit for bit
};

// Everything known before a weight is read.
struct ConvertPlan {
  std::string path;  // of the checkpoint, as it was given
  std::unique_ptr<TensorSource> source;
  pb::Manifest manifest;  // offsets and sizes planned
  std::string tokenizer;  // serialized; empty: none
  std::vector<TensorPlan> tensors;
  std::vector<std::pair<std::string, std::string>> left_out;  // (checkpoint's name, why)
  int64_t source_bytes = 0;                                   // of all its files
  int64_t file_bytes = 0;
};
// What type and target_bits ask for; nullopt: "source", or what the checkpoint decides.
// InvalidArgument where there is no such scheme.
absl::StatusOr<std::optional<Scheme>> ConversionScheme(const ConvertOptions& options);
absl::StatusOr<ConvertPlan> PlanConversion(const ConvertOptions& options);

struct TensorReport {
  std::string name;
  double relative_rms_error = 0;  // sqrt(sum (stored - source)^2 / sum source^2)
};

// Carries the plan out. Peak anonymous memory beyond the plan itself stays under memory_budget
// bytes. `progress` hears of source bytes done, from this thread. `encode` encodes what is not
// carried over, called from this thread. On any error there is no output.
absl::StatusOr<std::vector<TensorReport>> Convert(
    const ConvertPlan& plan, const std::string& output, bool overwrite, int64_t memory_budget,
    ThreadPool& pool, absl::FunctionRef<void(int64_t done_bytes)> progress,
    const EncodeNamed& encode = EncodePlainly);

}  // namespace quire

#endif  // QUIRE_CONVERT_CONVERT_H_
