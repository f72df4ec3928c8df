// Rounding a matrix's columns one after another, each making up for the errors of those before it
// as far as its inputs are correlated with theirs: GPTQ (Frantar et al. 2022), in the form of LDLQ
// (Chee et al. 2023, theorem 1), which needs no inverse.
//
// With H = X'X over the calibration's inputs, the rounded matrix Q is to minimize tr(D H D'),
// D = W - Q. With H = U'U (Cholesky, U upper triangular) that is the squared sum over columns r of
//   U_rr (w_r - q_r + sum over s > r of d_s U_rs / U_rr),
// so from the last column to the first q_r is w_r + sum_s d_s U_rs / U_rr, rounded. Scales are
// fixed beforehand, so columns may come in any order: by their inputs' mean squares, ascending, so
// that those that matter most are rounded while most of the others can still make up for it.
#ifndef QUIRE_QUANTIZE_ERROR_FEEDBACK_H_
#define QUIRE_QUANTIZE_ERROR_FEEDBACK_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "format/packed_layout.h"
#include "quantize/encode.h"
#include "quantize/hessian.h"

namespace quire {

// What the rows of all matrices that multiply the same inputs share. Immutable.
struct ErrorFeedback {
  std::vector<int32_t> order;  // of the columns: place -> column; the last place is rounded first
  SymmetricMatrix factor;      // U, by places
  std::vector<float> weights;  // of the columns' squared errors in the choice of scales
};

// Columns' weights in the choice of scales, of mean 1, from their mean squares: a hundredth of the
// mean is added, so that none is without weight.
std::vector<float> ScaleWeights(std::vector<float> mean_squares);

// From H, of as many rows as the matrices have columns. The diagonal is raised by 1% of its mean
// first, so that columns without inputs are rounded for themselves and a short text's accidents
// weigh less. Nothing where H is not finite.
std::optional<ErrorFeedback> MakeErrorFeedback(SymmetricMatrix h, ThreadPool& pool);

// Rows that go through error feedback together: four panels.
inline constexpr int64_t kFeedbackRows = 64;

// Memory that EncodeWithFeedback takes meanwhile.
int64_t FeedbackScratchBytes(const Geometry& geometry);

// Encodes up to kFeedbackRows rows [n_rows][geometry.cols], the first one first of a panel, into
// whole panels. geometry: PANELS, an encoding with scales, columns as many as the factor's.
// `codebook` and *error as in EncodeUnit. Deterministic as EncodeUnit; thread-safe.
void EncodeWithFeedback(const Geometry& geometry, const int8_t* codebook,
                        const ErrorFeedback& feedback, const float* rows, int64_t n_rows,
                        uint8_t* out, EncodingError* error);

}  // namespace quire

#endif  // QUIRE_QUANTIZE_ERROR_FEEDBACK_H_
