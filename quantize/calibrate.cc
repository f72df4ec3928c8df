#include "quantize/calibrate.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "quantize/calibration_file.h"
#include "quantize/layer_inputs.h"
#include "quantize/memory_budget.h"
#include "quantize/work_file.h"

namespace quire {
namespace {

// What one input adds up to.
struct Accumulated {
  std::vector<double> squares;  // sums
  SymmetricMatrix moments;      // empty where nobody wants them

  void Add(const float* x, int64_t stride, int64_t tokens, ThreadPool& pool) {
    const int64_t n = squares.size();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < n; ++c) {
        const double value = x[t * stride + c];
        squares[c] += value * value;
      }
    }
    if (moments.n() > 0) moments.AddOuterProducts(x, stride, tokens, pool);
  }
};

}  // namespace

absl::Status Calibrate(Session& session, absl::Span<const int32_t> tokens,
                       const CalibrateOptions& options,
                       absl::FunctionRef<void(double part)> progress) {
  const Model& model = session.model();
  const CalibrationHeader header =
      CalibrationHeader::Of(model.config(), options.moments, tokens.size());
  int64_t needed =
      session.transformer().scratch_bytes() + static_cast<int64_t>(tokens.size() * sizeof(int32_t));
  for (int input = 0; input < kInputsOfLayer; ++input) {
    const int64_t n = header.Columns(input);
    needed += 8 * n + (options.moments ? SymmetricMatrix::Bytes(n) : 0);
    // A batch of it, twice.
    needed += 2 * Transformer::kBatchTokens * n * static_cast<int64_t>(sizeof(float));
  }
  if (absl::Status status = CheckMemoryBudget("calibrating", needed, options.memory_budget);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<std::unique_ptr<CalibrationWriter>> writer =
      CalibrationWriter::Create(options.path, header, options.overwrite);
  if (!writer.ok()) return writer.status();
  const int64_t n_states = static_cast<int64_t>(tokens.size()) * header.hidden_dim;
  // Room for the states on the disk: without a finished layer nothing of it stays.
  absl::StatusOr<std::unique_ptr<WorkFile>> work = WorkFile::Open(
      absl::StrCat(options.path, ".unfinished"), {/*fingerprint=*/0, /*layers=*/1, n_states, 0});
  if (!work.ok()) return work.status();
  const auto finish = [&]() -> absl::Status {
    LayerInputs inputs(session, tokens);
    float* const states = (*work)->states();
    inputs.Embed(states);
    for (uint32_t l = 0; l < header.n_layers; ++l) {
      std::vector<Accumulated> sums;
      for (int input = 0; input < kInputsOfLayer; ++input) {
        const int64_t n = header.Columns(input);
        sums.push_back({std::vector<double>(n), SymmetricMatrix(options.moments ? n : 0)});
      }
      const auto observe = [&](Transformer::LayerInput input, const float* x, int64_t stride,
                               int64_t n) {
        sums[static_cast<int>(input)].Add(x, stride, n, session.pool());
        return true;
      };
      inputs.RunAttention(model.layers()[l], states, observe);
      inputs.RunFeedForward(model.layers()[l], states, observe);
      for (const Accumulated& sum : sums) {
        std::vector<float> means;
        for (const double square : sum.squares) {
          means.push_back(static_cast<float>(square / static_cast<double>(tokens.size())));
          if (!std::isfinite(means.back())) {
            return absl::FailedPreconditionError(
                absl::StrCat(model.file().path(), ": inputs of layer ", l,
                             " are not finite: the model cannot be calibrated"));
          }
        }
        absl::Status status = (*writer)->Append(means, options.moments ? &sum.moments : nullptr);
        if (!status.ok()) return status;
      }
      progress((l + 1.0) / header.n_layers);
    }
    return model.file().mapping().CheckUnchanged();
  };
  if (absl::Status status = finish(); !status.ok()) return status;
  return (*writer)->Finish();
}

}  // namespace quire
