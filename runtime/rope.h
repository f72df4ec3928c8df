// Rotary position embedding (Su et al. 2021, arXiv:2104.09864), rotate-half convention: element i
// of a head turns with element i + head_dim / 2 by the angle position x frequency[i].
#ifndef QUIRE_RUNTIME_ROPE_H_
#define QUIRE_RUNTIME_ROPE_H_

#include <cstdint>
#include <vector>

#include "format/manifest.pb.h"

namespace quire {

// Radians per position, [head_dim / 2]: theta^(-2i / head_dim), scaled as the configuration says.
// Rounded to f32 where the transformers library rounds, since angles at far positions show it.
std::vector<float> RopeFrequencies(const pb::ModelConfig& config);

// cosine and sine of position x frequency (the product in f32), each [frequencies.size()].
void RopeAngles(const std::vector<float>& frequencies, int64_t position, float* cosine,
                float* sine);

// Turns one head, in place. cosine, sine: [head_dim / 2].
void RopeRotate(const float* cosine, const float* sine, int64_t head_dim, float* head);

}  // namespace quire

#endif  // QUIRE_RUNTIME_ROPE_H_
