#include "quantize/error_feedback.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "quantize/kernels/matrix.h"
#include "quantize/row_encoder.h"

namespace quire {
namespace {

constexpr int64_t kBlock = SymmetricMatrix::kBlock, kRows = kFeedbackRows;
// Columns whose sums are brought up to date together.
constexpr int64_t kStep = 8;
constexpr double kDamping = 0.01;

double Mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// sums[i][row] += sum over t < k of u(i, t) errors[t][row].
void AddErrors(const float* u, const float* errors, int64_t k, int64_t rows, float* sums) {
  if (k == 0) return;
  MultiplyAddArgs args{};
  args.a = u;
  args.a_row = kBlock;
  args.a_step = 1;
  args.b = errors;
  args.b_row = kRows;
  args.k = k;
  args.c = sums;
  args.c_row = kRows;
  args.rows = rows;
  args.cols = kRows;
  args.sign = 1;
  ChooseMatrixKernels().multiply_add(args);
}

}  // namespace

std::vector<float> ScaleWeights(std::vector<float> mean_squares) {
  const double mean = Mean(mean_squares);
  for (float& weight : mean_squares) {
    weight = mean > 0 ? static_cast<float>(weight / mean + kDamping) : 1.0f;
  }
  return mean_squares;
}

std::optional<ErrorFeedback> MakeErrorFeedback(SymmetricMatrix h, ThreadPool& pool) {
  const std::vector<float> diagonal = h.Diagonal();
  if (!std::isfinite(Mean(diagonal))) return std::nullopt;
  ErrorFeedback feedback{std::vector<int32_t>(h.n()), std::move(h), ScaleWeights(diagonal)};
  std::iota(feedback.order.begin(), feedback.order.end(), 0);
  std::stable_sort(feedback.order.begin(), feedback.order.end(),
                   [&](int32_t a, int32_t b) { return diagonal[a] < diagonal[b]; });
  feedback.factor.Permute(feedback.order);
  feedback.factor.Factor(kDamping, pool);
  return feedback;
}

int64_t FeedbackScratchBytes(const Geometry& geometry) {
  const int64_t places = RoundUp(geometry.cols, kBlock);
  // Errors and sums; of each row two floats for each group.
  return 4 * kRows * (places + kBlock + 2 * geometry.groups());
}

void EncodeWithFeedback(const Geometry& geometry, const int8_t* codebook,
                        const ErrorFeedback& feedback, const float* rows, int64_t n_rows,
                        uint8_t* out, EncodingError* error) {
  const int64_t cols = geometry.cols;
  const SymmetricMatrix& u = feedback.factor;
  std::memset(out, 0, (n_rows + kPanelRows - 1) / kPanelRows * geometry.unit_bytes());
  std::vector<RowGrid> grids;
  std::vector<RowPlace> places;
  for (int64_t r = 0; r < n_rows; ++r) {
    const RowScales scales =
        ChooseScales(geometry, {rows + r * cols, 1, codebook, feedback.weights.data()});
    grids.emplace_back(geometry.encoding, codebook, scales);
    places.emplace_back(geometry, static_cast<int>(r % kPanelRows),
                        out + r / kPanelRows * geometry.unit_bytes());
    places.back().StoreScales(scales);
    for (int64_t c = cols; c < geometry.padded_cols(); ++c) {
      places.back().StoreCode(c, grids.back().Nearest(c, 0).code);
    }
  }
  std::vector<float> errors(u.blocks() * kBlock * kRows);  // [place][row]: w - q
  std::vector<float> sums(kBlock * kRows);                 // of a block: [place][row]
  for (int64_t block = u.blocks() - 1; block >= 0; --block) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int64_t later = block + 1; later < u.blocks(); ++later) {
      AddErrors(u.Block(block, later), errors.data() + later * kBlock * kRows, kBlock, kBlock,
                sums.data());
    }
    const float* diagonal = u.Block(block, block);
    float* block_errors = errors.data() + block * kBlock * kRows;
    for (int64_t step = kBlock - kStep; step >= 0; step -= kStep) {
      const int64_t done = step + kStep;
      AddErrors(diagonal + step * kBlock + done, block_errors + done * kRows, kBlock - done, kStep,
                sums.data() + step * kRows);
      for (int64_t i = done - 1; i >= step; --i) {
        const int64_t place = block * kBlock + i;
        if (place >= cols) continue;
        const int64_t column = feedback.order[place];
        float* sum = sums.data() + i * kRows;
        for (int64_t s = i + 1; s < done; ++s) {
          const float factor = diagonal[i * kBlock + s];
          for (int64_t r = 0; r < kRows; ++r) sum[r] += factor * block_errors[s * kRows + r];
        }
        const float inverse = 1.0f / diagonal[i * kBlock + i];
        for (int64_t r = 0; r < n_rows; ++r) {
          const float w = rows[r * cols + column], wanted = w + sum[r] * inverse;
          const RowGrid::Point point = grids[r].Nearest(column, wanted);
          places[r].StoreCode(column, point.code);
          block_errors[i * kRows + r] = w - point.value;
          const double difference = w - point.value, value = w;
          error->squared_error += difference * difference;
          error->squared_norm += value * value;
        }
      }
    }
  }
}

}  // namespace quire
