// The definition: what every kernel computes, one f32 operation after another. See kernels.h.
#include <math.h>

#include "format/half.h"
#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

constexpr int kLanes =
    16;  // sums over columns run in 16 lanes, column c in lane c % 16, and end in Fold

float Fold(float lane[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

float Exp(float x) {
  x = kExpMin > x ? kExpMin : x;  // NaN stays
  x = kExpMax < x ? kExpMax : x;
  const float rounded = fmaf(x, kLog2E, kRound);
  const float n = rounded - kRound;
  const float r = fmaf(n, -kLn2Low, fmaf(n, -kLn2High, x));
  float p = kExpP[4];
  for (int i = 3; i >= 0; --i) p = fmaf(p, r, kExpP[i]);
  const float exp_r = fmaf(p, r * r, r) + 1.0f;
  return exp_r * BitsToFloat((FloatToBits(rounded) << 23) + 0x3f800000);  // x 2^n
}

template <typename T>
T Load(const uint8_t* p) {
  T value;
  memcpy(&value, p, sizeof value);
  return value;
}

// Where group g of a panel lies.
struct Group {
  const uint8_t* scales;  // 16 rows
  const uint8_t* codes;
};

template <Encoding E>
Group FindGroup(const uint8_t* panel, int64_t groups, int64_t g) {
  constexpr EncodingInfo info = Info(E);
  constexpr int64_t code_bytes = kPanelRows * kGroupColumns * info.code_bits / 8;
  constexpr int64_t scale_bytes = kPanelRows * info.scale_bytes;
  const int64_t first = g / kBlockGroups * kBlockGroups;
  const int64_t in_block = groups - first < kBlockGroups ? groups - first : kBlockGroups;
  const uint8_t* block =
      panel + (info.row_scale ? kPanelRows * 4 : 0) + first * (scale_bytes + code_bytes);
  const int64_t padded_scales = (in_block * scale_bytes + kLineBytes - 1) / kLineBytes * kLineBytes;
  return {block + (g - first) * scale_bytes, block + padded_scales + (g - first) * code_bytes};
}

// The integer that the code of (row, column k of the group) stands for.
template <Encoding E>
int Code(const uint8_t* codes, const int8_t* codebook, int row, int k) {
  const int line = k / 4;
  const uint8_t* at = codes + 4 * row + k % 4;
  if (E == Encoding::kQ8) return static_cast<int8_t>(at[line * kLineBytes]);
  const int byte = at[line % 4 * kLineBytes], nibble = line < 4 ? byte & 15 : byte >> 4;
  const uint8_t* planes = at + 4 * kLineBytes;
  switch (E) {
    case Encoding::kQ4:
      return codebook[nibble];
    case Encoding::kQ5:
      return codebook[nibble | (planes[0] >> line & 1) << 4];
    case Encoding::kQ6:
      return (nibble | (planes[line / 4 * kLineBytes] >> line % 4 * 2 & 3) << 4) - 32;
    case Encoding::kQ4_1:
      return nibble;
    default:
      return nibble - 8;
  }
}

template <Encoding E>
float WeightScale(const uint8_t* scales, int row) {
  constexpr int kScaleBytes = Info(E).scale_bytes;
  if (kScaleBytes == 1) return static_cast<int8_t>(scales[row]);
  return HalfToFloat(Load<uint16_t>(scales + kScaleBytes * row));
}

// Exact within a group; over groups one chain of fused multiply-adds, in order: a group's product,
// then, where it has a minimum, that times the sum of the activations.
template <Encoding E>
void MatmulInteger(const MatmulArgs& a) {
  for (int64_t panel = 0; panel < a.n_panels; ++panel) {
    const uint8_t* base = a.panels + panel * a.panel_bytes;
    for (int64_t t = 0; t < a.n_tokens; ++t) {
      float* y = a.y + t * a.y_stride + panel * kPanelRows;
      for (int row = 0; row < kPanelRows; ++row) {
        float sum = 0;
        for (int64_t g = 0; g < a.groups; ++g) {
          const Group group = FindGroup<E>(base, a.groups, g);
          const int8_t* q = a.xq.q + (g * a.n_tokens + t) * kGroupColumns;
          int32_t dot = 0;
          for (int k = 0; k < kGroupColumns; ++k)
            dot += q[k] * Code<E>(group.codes, a.codebook, row, k);
          const float scale = WeightScale<E>(group.scales, row) * a.xq.scale[g * a.n_tokens + t];
          sum = fmaf(static_cast<float>(dot), scale, sum);
          if (E == Encoding::kQ4_1) {
            const float minimum = HalfToFloat(Load<uint16_t>(group.scales + 4 * row + 2));
            sum = fmaf(static_cast<float>(a.xq.bias[g * a.n_tokens + t] / -128),
                       minimum * a.xq.scale[g * a.n_tokens + t], sum);
          }
        }
        y[row] = Info(E).row_scale ? sum * Load<float>(base + 4 * row) : sum;
      }
    }
  }
}

template <Encoding E>
float Weight(const uint8_t* codes, int row, int k) {
  if (E == Encoding::kF32) return Load<float>(codes + k * kLineBytes + 4 * row);
  const uint16_t half = Load<uint16_t>(codes + k / 2 * kLineBytes + 4 * row + k % 2 * 2);
  return E == Encoding::kF16 ? HalfToFloat(half) : Bfloat16ToFloat(half);
}

// Two chains of fused multiply-adds, even and odd columns, in order.
template <Encoding E>
void MatmulFloat(const MatmulArgs& a) {
  for (int64_t panel = 0; panel < a.n_panels; ++panel) {
    const uint8_t* base = a.panels + panel * a.panel_bytes;
    for (int64_t t = 0; t < a.n_tokens; ++t) {
      const float* x = a.x + t * a.x_stride;
      for (int row = 0; row < kPanelRows; ++row) {
        float even = 0, odd = 0;
        for (int64_t g = 0; g < a.groups; ++g) {
          const uint8_t* codes = FindGroup<E>(base, a.groups, g).codes;
          for (int k = 0; k < kGroupColumns; k += 2) {
            even = fmaf(Weight<E>(codes, row, k), x[g * kGroupColumns + k], even);
            odd = fmaf(Weight<E>(codes, row, k + 1), x[g * kGroupColumns + k + 1], odd);
          }
        }
        a.y[t * a.y_stride + panel * kPanelRows + row] = even + odd;
      }
    }
  }
}

void Quantize(const float* x, int64_t x_stride, int64_t n_tokens, int64_t t0, int64_t t1,
              int64_t groups, const QuantizedActivations& out) {
  constexpr uint32_t kTiny = 0x03800000;  // 2^-120
  constexpr uint32_t kInf = 0x7f800000;
  for (int64_t t = t0; t < t1; ++t) {
    for (int64_t g = 0; g < groups; ++g) {
      const float* from = x + t * x_stride + g * kGroupColumns;
      const int64_t at = g * n_tokens + t;
      uint32_t bits = 0;  // of the largest magnitude; those of NaN are larger still
      for (int k = 0; k < kGroupColumns; ++k) {
        const uint32_t magnitude = FloatToBits(from[k]) & 0x7fffffff;
        bits = magnitude > bits ? magnitude : bits;
      }
      const float max = BitsToFloat(bits);
      const bool plain = bits >= kTiny && bits < kInf;
      const float inverse = plain ? 127.0f / max : 0.0f;
      int32_t sum = 0;
      for (int k = 0; k < kGroupColumns; ++k) {
        const int32_t q = plain ? static_cast<int32_t>(nearbyintf(from[k] * inverse)) : 0;
        out.q[at * kGroupColumns + k] = static_cast<int8_t>(q);
        sum += q;
      }
      out.scale[at] = plain ? max / 127.0f : bits < kInf ? 0.0f : NAN;
      out.bias[at] = -128 * sum;
    }
  }
}

void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  float lane[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lane[i % kLanes] = fmaf(x[i], x[i], lane[i % kLanes]);
  const float scale = 1.0f / sqrtf(Fold(lane) / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

void SiluMul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

void ToHalf(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = FloatToHalf(x[i]);
}

// What a span, or several in order, say of one query.
struct Part {
  float sum[kMaxHeadDim] = {};
  float max = -INFINITY, total = 0;
};

// Positions [begin, end) of the span at keys and values.
Part AttendSpan(const AttentionArgs& a, const float* q, const uint16_t* keys,
                const uint16_t* values, int64_t begin, int64_t end) {
  const int64_t width = AttentionWidth(a.head_dim);
  Part part;
  float weight[kAttentionSpan], weight_lane[kLanes] = {};
  for (int64_t i = begin; i < end; ++i) {
    float lane[kLanes] = {};
    for (int64_t d = 0; d < a.head_dim; ++d) {
      lane[d % kLanes] = fmaf(q[d], HalfToFloat(keys[i * width + d]), lane[d % kLanes]);
    }
    weight[i] = Fold(lane) * a.scale;
    part.max = weight[i] > part.max ? weight[i] : part.max;
  }
  for (int64_t i = begin; i < end; ++i) {
    weight[i] = Exp(weight[i] - part.max);
    weight_lane[i % kLanes] += weight[i];
  }
  part.total = Fold(weight_lane);
  for (int64_t d = 0; d < a.head_dim; ++d) {
    for (int64_t i = begin; i < end; ++i) {
      part.sum[d] = fmaf(weight[i], HalfToFloat(values[i * width + d]), part.sum[d]);
    }
  }
  return part;
}

// Joins the next span (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018):
// what belongs to a lower maximum shrinks by exp(lower - higher).
void Append(const Part& next, int64_t head_dim, Part* all) {
  const float max = next.max > all->max ? next.max : all->max;
  const float shrink = Exp(all->max - max), shrink_next = Exp(next.max - max);
  all->max = max;
  all->total = fmaf(next.total, shrink_next, all->total * shrink);
  for (int64_t d = 0; d < head_dim; ++d) {
    all->sum[d] = fmaf(next.sum[d], shrink_next, all->sum[d] * shrink);
  }
}

void Divide(const Part& part, int64_t head_dim, float* out) {
  for (int64_t d = 0; d < head_dim; ++d) out[d] = part.sum[d] / part.total;
}

void Attention(const AttentionArgs& a) {
  const int64_t width = AttentionWidth(a.head_dim);
  for (int64_t t = 0; t < a.n_tokens; ++t) {
    const int64_t n = a.n_positions + t;
    for (int64_t h = 0; h < a.n_heads; ++h) {
      const float* q = a.q + t * a.q_stride + h * a.head_dim;
      const uint16_t *keys = a.keys, *values = a.values;
      Part all = AttendSpan(a, q, keys, values, a.begin, n < kAttentionSpan ? n : kAttentionSpan);
      for (int64_t at = kAttentionSpan; at < n; at += kAttentionSpan) {
        keys += a.span_stride;
        values += a.span_stride;
        const int64_t end = n - at < kAttentionSpan ? n - at : kAttentionSpan;
        Append(AttendSpan(a, q, keys, values, 0, end), a.head_dim, &all);
      }
      if (!a.parts) {
        Divide(all, a.head_dim, a.out + t * a.out_stride + h * a.head_dim);
        continue;
      }
      float* part = a.out + h * AttentionPartFloats(a.head_dim);
      for (int64_t d = 0; d < width; ++d) part[d] = all.sum[d];
      part[width] = all.max;
      part[width + 1] = all.total;
    }
  }
}

void JoinParts(const float* parts, int64_t n_parts, int64_t stride, int64_t head_dim, float* out) {
  const int64_t width = AttentionWidth(head_dim);
  Part all;
  for (int64_t p = 0; p < n_parts; ++p) {
    const float* from = parts + p * stride;
    Part part;
    memcpy(part.sum, from, head_dim * sizeof(float));
    part.max = from[width];
    part.total = from[width + 1];
    if (p == 0) {
      all = part;
    } else {
      Append(part, head_dim, &all);
    }
  }
  Divide(all, head_dim, out);
}

constexpr KernelTable kTable = {
    "scalar",
    [] { return true; },
    {MatmulFloat<Encoding::kF32>, MatmulFloat<Encoding::kF16>, MatmulFloat<Encoding::kBF16>,
     MatmulInteger<Encoding::kQ8>, MatmulInteger<Encoding::kQ4>, MatmulInteger<Encoding::kQ4_0>,
     MatmulInteger<Encoding::kQ5>, MatmulInteger<Encoding::kQ6>, MatmulInteger<Encoding::kQ4_1>},
    Quantize,
    RmsNorm,
    SiluMul,
    ToHalf,
    Attention,
    JoinParts,
};

}  // namespace

const KernelTable& ScalarKernels() { return kTable; }

}  // namespace quire
