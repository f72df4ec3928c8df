#include "runtime/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/rope.h"

namespace quire {
namespace {

// Queries of one head that one thread takes at a time.
constexpr int64_t kQueryBlock = 16;
// Tokens of a batch whose input one thread prepares at a time.
constexpr int64_t kPrepareBlock = 8;
// Pieces of a batch's attention: enough that a thread which is held up leaves the rest to others.
constexpr int64_t kPiecesPerThread = 8;
// The smallest piece of a phase that a thread takes, about half a microsecond's reading.
constexpr int64_t kPieceBytes = 16 << 10;
// What a thread that waits for the others reads of the next phase: it fits into any core's cache.
constexpr int64_t kAheadBytes = 64 << 10;

// Hands out 64-byte aligned stretches of memory; over a null base it only counts.
class Allotter {
 public:
  explicit Allotter(uint8_t* base) : base_(base) {}
  int64_t used() const { return used_; }

  template <typename T>
  T* Take(int64_t n) {
    T* start = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ = RoundUp(used_ + n * static_cast<int64_t>(sizeof(T)), kLineBytes);
    return start;
  }

  QuantizedActivations TakeQuantized(int64_t n, int64_t columns) {
    const int64_t groups = columns / kGroupColumns;
    int8_t* q = Take<int8_t>(n * columns);
    float* scale = Take<float>(n * groups);
    return {q, scale, Take<int32_t>(n * groups)};
  }

 private:
  uint8_t* base_;
  int64_t used_ = 0;
};

int64_t PadColumns(int64_t n) { return RoundUp(n, kGroupColumns); }

bool AnyInteger(std::initializer_list<const Matrix*> matrices) {
  return std::any_of(matrices.begin(), matrices.end(),
                     [](const Matrix* m) { return m->is_integer(); });
}

}  // namespace

Transformer::Transformer(const Model& model, const KernelTable& kernels, ThreadPool& pool,
                         KvCache cache, int64_t max_logits)
    : model_(model),
      config_(model.config()),
      kernels_(kernels),
      pool_(pool),
      cache_(std::move(cache)),
      max_logits_(max_logits),
      frequencies_(RopeFrequencies(config_)),
      head_dim_(config_.head_dim()),
      q_dim_(config_.n_heads() * head_dim_),
      kv_dim_(config_.n_kv_heads() * head_dim_),
      hidden_stride_(PadColumns(config_.hidden_dim())),
      q_stride_(PadColumns(q_dim_)),
      kv_stride_(PadColumns(kv_dim_)),
      ffn_stride_(PadColumns(config_.ffn_dim())),
      logits_stride_(RoundUp(config_.vocab_size(), kPanelRows)),
      window_(config_.sliding_window() > 0 ? config_.sliding_window() : cache_.ctx()),
      spans_done_(config_.n_kv_heads()),
      own_(pool.size()) {}

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(const Model& model,
                                                                 const KernelTable& kernels,
                                                                 ThreadPool& pool, int64_t ctx,
                                                                 int64_t max_logits) {
  const pb::ModelConfig& config = model.config();
  if (ctx < 1 || ctx > config.context_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a context of ", ctx, " tokens; this model takes 1 to ", config.context_tokens()));
  }
  absl::StatusOr<KvCache> cache =
      KvCache::Create(config.n_layers(), config.n_kv_heads(), config.head_dim(), ctx);
  if (!cache.ok()) return cache.status();
  max_logits = std::clamp<int64_t>(max_logits, 1, kBatchTokens);
  std::unique_ptr<Transformer> self(
      new Transformer(model, kernels, pool, *std::move(cache), max_logits));
  absl::StatusOr<AnonymousMemory> scratch =
      AnonymousMemory::Map("scratch memory", self->LayOutScratch(nullptr));
  if (!scratch.ok()) return scratch.status();
  self->scratch_ = *std::move(scratch);
  self->LayOutScratch(self->scratch_.data());
  return self;
}

int64_t Transformer::LayOutScratch(uint8_t* base) {
  Allotter memory(base);
  constexpr int64_t n = kBatchTokens;
  const int64_t columns = std::max({hidden_stride_, q_stride_, ffn_stride_});
  x_ = memory.Take<float>(n * hidden_stride_);
  delta_ = memory.Take<float>(n * hidden_stride_);
  cosine_ = memory.Take<float>(n * head_dim_ / 2);
  sine_ = memory.Take<float>(n * head_dim_ / 2);
  attention_ = memory.Take<float>(n * q_stride_);
  gate_ = memory.Take<float>(n * ffn_stride_);
  // q, k and v are over when the feed-forward block begins. What is multiplied in place (attention,
  // gate) shares its memory with nothing, since its padding has to stay zero.
  float* shared = memory.Take<float>(n * std::max(q_stride_ + 2 * kv_stride_, ffn_stride_));
  q_ = up_ = shared;
  if (shared != nullptr) {
    k_ = q_ + n * q_stride_;
    v_ = k_ + n * kv_stride_;
  }
  // No phase norms its input and writes delta.
  shared_ = {delta_, memory.TakeQuantized(n, columns)};
  for (OwnInput& own : own_) {
    own.buffers = {memory.Take<float>(hidden_stride_), memory.TakeQuantized(1, columns)};
  }
  const bool panels = model_.embedding().geometry.layout == Layout::kPanels;
  // A window may begin and end within a span.
  const int64_t spans = (std::min(window_ + kAttentionSpan, ctx()) - 1) / kAttentionSpan + 1;
  const int64_t span_parts = config_.n_heads() * AttentionPartFloats(head_dim_);
  parts_ = memory.Take<float>(spans > 1 ? spans * span_parts : 0);
  unit_rows_ = memory.Take<float>(panels ? pool_.size() * kPanelRows * hidden_stride_ : 0);
  logits_ = memory.Take<float>(max_logits_ * logits_stride_);
  return memory.used();
}

absl::Status Transformer::Forward(absl::Span<const int32_t> tokens) {
  if (static_cast<int64_t>(tokens.size()) > ctx() - position_) {
    return absl::ResourceExhaustedError(absl::StrCat(tokens.size(), " tokens after ", position_,
                                                     " do not fit into a context of ", ctx(),
                                                     " tokens"));
  }
  for (int32_t id : tokens) {
    if (id < 0 || id >= static_cast<int64_t>(config_.vocab_size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", id, "; the model's embedding has ", config_.vocab_size(), " rows"));
    }
  }
  const int64_t before = position_;
  while (!tokens.empty()) {
    const absl::Span<const int32_t> batch = tokens.subspan(0, kBatchTokens);
    if (absl::Status status = ForwardBatch(batch); !status.ok()) {
      position_ = before;
      return status;
    }
    tokens.remove_prefix(batch.size());
  }
  return absl::OkStatus();
}

int64_t Transformer::GrowthBytes(int64_t tokens) const {
  constexpr int64_t kFewMore = 16;
  const int64_t positions = std::min(ctx(), position_ + tokens + kFewMore);
  const int64_t cache =
      std::max<int64_t>(0, cache_.BytesOf(positions) - cache_.BytesOf(largest_position_));
  const int64_t scratch = tokens > largest_batch_
                              ? scratch_.bytes() * std::min(tokens, kBatchTokens) / kBatchTokens
                              : 0;
  return cache + scratch;
}

// compute(layer), with the matrices of that step at hand.
absl::Status Transformer::WithLayer(int64_t l, LayerStep step,
                                    absl::FunctionRef<void(const Layer&)> compute) {
  if (feed_ == nullptr) {
    compute(model_.layers()[l]);
    return absl::OkStatus();
  }
  const absl::StatusOr<const Layer*> layer = feed_->Acquire(l, step);
  if (!layer.ok()) return layer.status();
  compute(**layer);
  feed_->Release();
  return absl::OkStatus();
}

absl::Status Transformer::ForwardBatch(absl::Span<const int32_t> tokens) {
  const int64_t n = tokens.size();
  if (feed_ != nullptr) {
    absl::Status status = feed_->BeginBatch(n, GrowthBytes(n));
    if (!status.ok()) return status;
  }
  Embed(tokens);
  for (int64_t t = 0; t < n; ++t) {
    RopeAngles(frequencies_, position_ + t, cosine_ + t * head_dim_ / 2, sine_ + t * head_dim_ / 2);
  }
  const std::vector<Layer>& layers = model_.layers();
  for (size_t l = 0; l < layers.size(); ++l) {
    absl::Status status = WithLayer(l, LayerStep::kAttention, [&](const Layer& layer) {
      ProjectQkv(layer, l, n);
      Attend(l, n);
      AddProjection(layer.wo, {attention_, q_stride_, q_dim_, nullptr, layer.wo.is_integer()}, n,
                    {{&layer.w_gate, 1}});
    });
    if (!status.ok()) return status;
    status = WithLayer(l, LayerStep::kGateUp, [&](const Layer& layer) { GateAndUp(layer, n); });
    if (!status.ok()) return status;
    status = WithLayer(l, LayerStep::kDown, [&](const Layer& layer) {
      const bool integer = layer.w_down.is_integer();
      AddProjection(layer.w_down, {gate_, ffn_stride_, config_.ffn_dim(), nullptr, integer}, n,
                    l + 1 < layers.size() ? QkvParts(layers[l + 1]) : Parts{{&model_.output(), 1}});
    });
    if (!status.ok()) return status;
  }
  position_ += n;
  batch_ = n;
  largest_batch_ = std::max(largest_batch_, n);
  largest_position_ = std::max(largest_position_, position_);
  return absl::OkStatus();
}

const float* Transformer::Logits(int64_t first, int64_t count) {
  const Matrix& output = model_.output();
  const Source source{x_ + first * hidden_stride_, hidden_stride_, config_.hidden_dim(),
                      model_.norm(), output.is_integer()};
  Phase(source, count, {{&output, 1}}, QkvParts(model_.layers()[0]),
        [&](int, Range panels, const Input& input) {
          Multiply(output, panels, input, count, logits_, logits_stride_);
        });
  return logits_;
}

absl::Span<const float> Transformer::Logits() {
  return absl::MakeConstSpan(Logits(batch_ - 1, 1), config_.vocab_size());
}

void Transformer::Embed(absl::Span<const int32_t> tokens) {
  const TensorView& table = model_.embedding();
  const int64_t unit_rows = table.geometry.unit_rows();
  pool_.ParallelFor(tokens.size(), [&](int64_t t, int thread) {
    float* row = x_ + t * hidden_stride_;
    if (unit_rows == 1) {
      DecodeUnit(table.geometry, table.codebook, table.data, tokens[t], row);
      return;
    }
    float* rows = unit_rows_ + thread * kPanelRows * hidden_stride_;
    DecodeUnit(table.geometry, table.codebook, table.data, tokens[t] / unit_rows, rows);
    std::memcpy(row, rows + tokens[t] % unit_rows * hidden_stride_, hidden_stride_ * sizeof(float));
  });
}

// In units of the fewest panels that hold whole heads.
Transformer::Parts Transformer::QkvParts(const Layer& layer) const {
  const int64_t unit = std::lcm(head_dim_, int64_t{kPanelRows}) / kPanelRows;
  return {{&layer.wq, unit}, {&layer.wk, unit}, {&layer.wv, unit}};
}

// q, k, v = W norm(x) + b; q and k are turned, k and v go to the cache. Each thread finishes the
// heads that it computes, so that nothing but the attention has to wait for all.
void Transformer::ProjectQkv(const Layer& layer, int64_t l, int64_t n) {
  struct Projection {
    const Matrix* matrix;
    const float* bias;
    float* y;
    int64_t stride;
    bool rotate;
    uint16_t* (KvCache::*cache)(int64_t layer, int64_t head, int64_t position);  // or null
  };
  const Projection projections[] = {{&layer.wq, layer.bq, q_, q_stride_, true, nullptr},
                                    {&layer.wk, layer.bk, k_, kv_stride_, true, &KvCache::key},
                                    {&layer.wv, layer.bv, v_, kv_stride_, false, &KvCache::value}};
  const Source source{x_, hidden_stride_, config_.hidden_dim(), layer.attn_norm,
                      AnyInteger({&layer.wq, &layer.wk, &layer.wv})};
  Phase(source, n, QkvParts(layer), {{&layer.wo, 1}},
        [&](int part, Range panels, const Input& input) {
          const Projection& p = projections[part];
          Multiply(*p.matrix, panels, input, n, p.y, p.stride);
          const int64_t begin = panels.begin * kPanelRows;
          const int64_t end = std::min(panels.end * kPanelRows, p.matrix->rows());
          for (int64_t t = 0; t < n; ++t) {
            float* y = p.y + t * p.stride;
            if (p.bias != nullptr) {
              for (int64_t r = begin; r < end; ++r) y[r] += p.bias[r];
            }
            for (int64_t r = begin; r < end; r += head_dim_) {
              const int64_t angles = t * head_dim_ / 2;
              if (p.rotate) RopeRotate(cosine_ + angles, sine_ + angles, head_dim_, y + r);
              if (p.cache == nullptr) continue;
              kernels_.to_half(y + r, head_dim_,
                               (cache_.*p.cache)(l, r / head_dim_, position_ + t));
            }
          }
        });
}

// attention = softmax(q k' / sqrt(head_dim)) v, each query over the positions up to its own, or the
// last sliding_window of them.
void Transformer::Attend(int64_t l, int64_t n) {
  if (n == 1) {
    AttendToken(l);
  } else {
    AttendBatch(l, n);
  }
}

// Attention of a KV head's query heads, for `n` tokens whose first is `token` of the batch, over
// positions from `begin` on. The first sees all below `end`.
AttentionArgs Transformer::HeadAttention(int64_t l, int64_t kv_head, int64_t token, int64_t n,
                                         int64_t begin, int64_t end) {
  const int64_t first = begin / kAttentionSpan * kAttentionSpan;
  const int64_t heads = config_.n_heads() / config_.n_kv_heads();
  const int64_t at = token * q_stride_ + kv_head * heads * head_dim_;
  AttentionArgs args = {};
  args.q = q_ + at;
  args.out = attention_ + at;
  args.q_stride = args.out_stride = q_stride_;
  args.n_heads = heads;
  args.n_tokens = n;
  args.keys = cache_.key(l, kv_head, first);
  args.values = cache_.value(l, kv_head, first);
  args.span_stride = cache_.span_stride();
  args.begin = begin - first;
  args.n_positions = end - first;
  args.head_dim = head_dim_;
  args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  return args;
}

// Work is cut by spans and KV heads, so that there is enough for every thread and each key and
// value is read once. Whoever finishes the last span of a head joins them all.
void Transformer::AttendToken(int64_t l) {
  const int64_t end = position_ + 1, begin = std::max<int64_t>(0, end - window_);
  const int64_t first_span = begin / kAttentionSpan;
  const int64_t spans = (end - 1) / kAttentionSpan + 1 - first_span;
  const int64_t kv_heads = config_.n_kv_heads(), heads = config_.n_heads() / kv_heads;
  const int64_t part = AttentionPartFloats(head_dim_), span_parts = config_.n_heads() * part;
  pool_.ParallelFor(kv_heads * spans, [&](int64_t i, int) {
    const int64_t kv_head = i % kv_heads, span = i / kv_heads;
    const int64_t span_begin = (first_span + span) * kAttentionSpan;
    AttentionArgs args = HeadAttention(l, kv_head, 0, 1, std::max(begin, span_begin),
                                       std::min(end, span_begin + kAttentionSpan));
    if (spans == 1) return kernels_.attention(args);
    float* parts = parts_ + kv_head * heads * part;
    float* out = std::exchange(args.out, parts + span * span_parts);
    args.parts = true;
    kernels_.attention(args);
    if (spans_done_[kv_head].fetch_add(1, std::memory_order_acq_rel) + 1 < spans) return;
    spans_done_[kv_head].store(0, std::memory_order_relaxed);
    for (int64_t h = 0; h < heads; ++h) {
      kernels_.join_parts(parts + h * part, spans, span_parts, head_dim_, out + h * head_dim_);
    }
  });
}

// Work is cut by KV heads and tokens.
void Transformer::AttendBatch(int64_t l, int64_t n) {
  const int64_t kv_heads = config_.n_kv_heads(), enough = kPiecesPerThread * pool_.size();
  const int64_t block = std::clamp<int64_t>(n * kv_heads / enough, 1, kQueryBlock);
  const int64_t blocks = (n + block - 1) / block;
  pool_.ParallelFor(kv_heads * blocks, [&](int64_t i, int) {
    const int64_t b = blocks - 1 - i / kv_heads;  // those that see most begin
    AttendTokens(l, i % kv_heads, {b * block, std::min(n, (b + 1) * block)});
  });
}

void Transformer::AttendTokens(int64_t l, int64_t kv_head, Range tokens) {
  while (tokens.begin < tokens.end) {
    // Tokens that see all positions go together, one whose window has begun to move goes alone.
    const int64_t end = position_ + tokens.begin + 1;
    const int64_t n = std::clamp<int64_t>(window_ - end + 1, 1, tokens.size());
    kernels_.attention(
        HeadAttention(l, kv_head, tokens.begin, n, std::max<int64_t>(0, end - window_), end));
    tokens.begin += n;
  }
}

// x += W source.
void Transformer::AddProjection(const Matrix& matrix, const Source& source, int64_t n,
                                const Parts& next) {
  Phase(source, n, {{&matrix, 1}}, next, [&](int, Range panels, const Input& input) {
    Multiply(matrix, panels, input, n, delta_, hidden_stride_);
    for (int64_t t = 0; t < n; ++t) {
      float* x = x_ + t * hidden_stride_;
      const float* delta = delta_ + t * hidden_stride_;
      for (int64_t r = panels.begin * kPanelRows; r < panels.end * kPanelRows; ++r) {
        x[r] += delta[r];
      }
    }
  });
}

// gate = silu(W_gate norm(x)) * (W_up norm(x)).
void Transformer::GateAndUp(const Layer& layer, int64_t n) {
  const Source source{x_, hidden_stride_, config_.hidden_dim(), layer.ffn_norm,
                      AnyInteger({&layer.w_gate, &layer.w_up})};
  Phase(source, n, {{&layer.w_gate, 1}}, {{&layer.w_down, 1}},
        [&](int, Range panels, const Input& input) {
          Multiply(layer.w_gate, panels, input, n, gate_, ffn_stride_);
          Multiply(layer.w_up, panels, input, n, up_, ffn_stride_);
          for (int64_t t = 0; t < n; ++t) {
            const int64_t at = t * ffn_stride_ + panels.begin * kPanelRows;
            kernels_.silu_mul(gate_ + at, up_ + at, panels.size() * kPanelRows);
          }
        });
}

// Prepares tokens [first, last) of a phase's input.
Transformer::Input Transformer::Prepare(const Source& source, int64_t n, Range tokens,
                                        const InputBuffers& buffers) const {
  Input input{source.x, source.stride, buffers.quantized};
  if (source.norm != nullptr) {
    for (int64_t t = tokens.begin; t < tokens.end; ++t) {
      kernels_.rms_norm(source.x + t * source.stride, source.norm, source.columns,
                        config_.norm_eps(), buffers.normed + t * hidden_stride_);
    }
    input.x = buffers.normed;
    input.stride = hidden_stride_;
  }
  if (source.quantize) {
    kernels_.quantize(input.x, input.stride, n, tokens.begin, tokens.end,
                      PadColumns(source.columns) / kGroupColumns, buffers.quantized);
  }
  return input;
}

Transformer::Pieces Transformer::Cut(const Parts& parts) {
  int64_t bytes = 0, units = 0;
  for (const Part& part : parts) {
    bytes += part.matrix->geometry.bytes();
    units += part.units();
  }
  return {std::max<int64_t>(1, std::min(bytes / kPieceBytes, units)), units};
}

// Where a thread begins to read in a phase.
absl::Span<const uint8_t> Transformer::FirstBytes(const Parts& parts, int thread) const {
  const Pieces pieces = Cut(parts);
  int64_t unit = pieces.FirstUnit(pool_.FirstItem(pieces.count, thread));
  for (const Part& part : parts) {
    const Geometry& geometry = part.matrix->geometry;
    const int64_t offset = unit * part.unit_panels * geometry.unit_bytes();
    if (unit < part.units()) {
      return {part.matrix->data + offset,
              static_cast<size_t>(std::min(kAheadBytes, geometry.bytes() - offset))};
    }
    unit -= part.units();
  }
  return {};
}

// Prepares the input of some matrices, then cuts their panels into pieces for whichever thread is
// free. A batch is prepared by all threads together; a single token by each thread for itself,
// which takes less time than waiting for one another. `next`: what the phase after this multiplies
// by.
void Transformer::Phase(const Source& source, int64_t n, const Parts& parts, const Parts& next,
                        absl::FunctionRef<void(int part, Range panels, const Input& input)> work) {
  Input shared = Prepare(source, n, {0, 0}, shared_);
  if (n == 1) {
    for (OwnInput& own : own_) own.ready = false;
  } else if (source.quantize || source.norm != nullptr) {
    const int64_t blocks = (n + kPrepareBlock - 1) / kPrepareBlock;
    pool_.ParallelFor(blocks, [&](int64_t i, int) {
      Prepare(source, n, {i * kPrepareBlock, std::min(n, (i + 1) * kPrepareBlock)}, shared_);
    });
  }
  const Pieces pieces = Cut(parts);
  const auto multiply = [&](int64_t first, int64_t last, int thread) {
    const Input* input = &shared;
    if (n == 1) {
      OwnInput& own = own_[thread];
      if (!own.ready) own.input = Prepare(source, 1, {0, 1}, own.buffers);
      own.ready = true;
      input = &own.input;
    }
    int64_t begin = pieces.FirstUnit(first), end = pieces.FirstUnit(last);
    for (int p = 0; p < static_cast<int>(parts.size()); ++p) {
      const Part& part = parts[p];
      const Range units{std::clamp<int64_t>(begin, 0, part.units()),
                        std::clamp<int64_t>(end, 0, part.units())};
      if (units.size() > 0) {
        work(p,
             {units.begin * part.unit_panels,
              std::min(units.end * part.unit_panels, part.matrix->geometry.units())},
             *input);
      }
      begin -= part.units();
      end -= part.units();
    }
  };
  pool_.ParallelRanges(pieces.count, multiply,
                       [&](int thread) { return FirstBytes(next, thread); });
}

// y[t][r] = row r of the matrix times token t of the input, for the rows of `panels`.
void Transformer::Multiply(const Matrix& matrix, Range panels, const Input& input, int64_t n,
                           float* y, int64_t y_stride) const {
  const Geometry& geometry = matrix.geometry;
  MatmulArgs args;
  args.panel_bytes = geometry.unit_bytes();
  args.panels = matrix.data + panels.begin * args.panel_bytes;
  args.n_panels = panels.size();
  args.groups = geometry.groups();
  args.codebook = matrix.codebook;
  args.xq = input.quantized;
  args.x = input.x;
  args.x_stride = input.stride;
  args.n_tokens = n;
  args.y = y + panels.begin * kPanelRows;
  args.y_stride = y_stride;
  kernels_.matmul[static_cast<int>(geometry.encoding) - 1](args);
}

}  // namespace quire
