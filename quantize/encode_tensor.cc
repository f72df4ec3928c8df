#include "quantize/encode_tensor.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <vector>

#include "absl/strings/str_cat.h"
#include "quantize/memory_budget.h"

namespace quire {
namespace {

// Input of a chunk: reading, encoding and writing it stay in a core's cache.
constexpr int64_t kChunkInputBytes = 512 << 10;

// What is encoded at a time: whole units.
struct Step {
  int64_t units;
  int64_t row_bytes;      // of input
  int64_t scratch_bytes;  // of a thread, beside input and output
};

// How a tensor is cut and how many threads and buffers work on it, within a memory budget.
struct Plan {
  int threads;
  int64_t chunk_units, chunks, slots;

  static absl::StatusOr<Plan> Make(const Geometry& geometry, const Step& step,
                                   const TensorSink& sink) {
    const int64_t step_input_bytes = step.units * geometry.unit_rows() * step.row_bytes;
    const int64_t step_output_bytes = step.units * geometry.unit_bytes();
    const int64_t steps = (geometry.units() + step.units - 1) / step.units;
    Plan plan;
    plan.threads = sink.pool.size();
    int64_t chunk_steps = std::min(
        steps, std::max<int64_t>(1, kChunkInputBytes / std::max<int64_t>(1, step_input_bytes)));
    while (true) {
      plan.slots = plan.threads == 1 ? 1 : 2 * plan.threads + 2;
      const int64_t chunk_bytes = chunk_steps * step_input_bytes + step.scratch_bytes;
      const int64_t needed =
          plan.threads * chunk_bytes + plan.slots * chunk_steps * step_output_bytes;
      if (needed <= sink.memory_budget - sink.memory_used) break;
      if (chunk_steps > 1) {
        chunk_steps = (chunk_steps + 1) / 2;
      } else if (plan.threads > 1) {
        --plan.threads;
      } else {
        return CheckMemoryBudget(absl::StrCat("encoding ", step.units * geometry.unit_rows(),
                                              " rows of ", geometry.cols, " columns"),
                                 needed + sink.memory_used, sink.memory_budget);
      }
    }
    plan.chunk_units = chunk_steps * step.units;
    plan.chunks = (geometry.units() + plan.chunk_units - 1) / plan.chunk_units;
    return plan;
  }
};

// Takes encoded chunks in any order from many threads and appends them in theirs. Whichever thread
// completes the next chunk appends it and those behind it that are ready, while the others go on.
class OrderedAppender {
 public:
  OrderedAppender(const Plan& plan, const AppendBytes& append)
      : slots_(plan.slots), append_(append) {}

  struct Slot {
    std::vector<uint8_t> bytes;
    EncodingError error;
    bool ready = false;
  };

  // Waits until the slot of a chunk is free. Chunks are taken in order, each finished by the thread
  // that took it, so the wait ends. Null after an error.
  Slot* Take(int64_t chunk) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(
        lock, [&] { return !status_.ok() || chunk < next_ + static_cast<int64_t>(slots_.size()); });
    return status_.ok() ? &SlotOf(chunk) : nullptr;
  }

  void Put(int64_t chunk) {
    std::unique_lock<std::mutex> lock(mutex_);
    SlotOf(chunk).ready = true;
    if (appending_) return;
    appending_ = true;
    while (status_.ok() && SlotOf(next_).ready) {
      Slot& slot = SlotOf(next_);
      lock.unlock();
      const absl::Status status = append_(slot.bytes);
      lock.lock();
      status_.Update(status);
      error_.squared_error += slot.error.squared_error;
      error_.squared_norm += slot.error.squared_norm;
      slot.ready = false;
      ++next_;
      changed_.notify_all();
    }
    appending_ = false;
  }

  void Fail(const absl::Status& status) {
    std::lock_guard<std::mutex> lock(mutex_);
    status_.Update(status);
    changed_.notify_all();
  }

  // When all threads have returned.
  absl::StatusOr<EncodingError> Result() const {
    if (!status_.ok()) return status_;
    return error_;
  }

 private:
  Slot& SlotOf(int64_t chunk) { return slots_[chunk % slots_.size()]; }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  const AppendBytes& append_;
  int64_t next_ = 0;  // the chunk to append
  bool appending_ = false;
  absl::Status status_;
  EncodingError error_;
};

// Reads, encodes and appends all units, a step at a time. read(first_row, n_rows, Input* out);
// encode(rows, n_rows, units, error, scratch).
template <typename Input, typename Read, typename Encode>
absl::StatusOr<EncodingError> Produce(const Geometry& geometry, const Step& step,
                                      const TensorSink& sink, Read read, Encode encode) {
  const int64_t unit_rows = geometry.unit_rows(), step_rows = step.units * unit_rows;
  const int64_t row_elements = step.row_bytes / static_cast<int64_t>(sizeof(Input));
  absl::StatusOr<Plan> plan = Plan::Make(geometry, step, sink);
  if (!plan.ok()) return plan.status();
  OrderedAppender appender(*plan, sink.append);
  std::atomic<int64_t> next_chunk{0};
  sink.pool.Run([&](int thread) {
    if (thread >= plan->threads) return;
    std::vector<Input> rows;
    EncodeScratch scratch;
    while (true) {
      const int64_t chunk = next_chunk.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= plan->chunks) return;
      OrderedAppender::Slot* slot = appender.Take(chunk);
      if (slot == nullptr) return;
      const int64_t first_unit = chunk * plan->chunk_units;
      const int64_t n_units = std::min(plan->chunk_units, geometry.units() - first_unit);
      const int64_t first_row = first_unit * unit_rows;
      const int64_t n_rows = std::min(n_units * unit_rows, geometry.rows - first_row);
      rows.resize(n_rows * row_elements);
      absl::Status status = read(first_row, n_rows, rows.data());
      if (!status.ok()) return appender.Fail(status);
      slot->bytes.resize(n_units * geometry.unit_bytes());
      slot->error = EncodingError();
      for (int64_t row = 0; row < n_rows; row += step_rows) {
        encode(rows.data() + row * row_elements, std::min(step_rows, n_rows - row),
               slot->bytes.data() + row / unit_rows * geometry.unit_bytes(), &slot->error,
               &scratch);
      }
      appender.Put(chunk);
    }
  });
  return appender.Result();
}

absl::Status CheckFinite(const Geometry& geometry, int64_t first_row,
                         absl::Span<const float> rows) {
  if (AllFinite(rows)) return absl::OkStatus();
  const int64_t i =
      std::find_if(rows.begin(), rows.end(), [](float v) { return !std::isfinite(v); }) -
      rows.begin();
  return absl::FailedPreconditionError(
      absl::StrCat("row ", first_row + i / geometry.cols, ", column ", i % geometry.cols, " is ",
                   std::isnan(rows[i]) ? "NaN" : "infinite", ": weights must be finite"));
}

struct CheckedRead {
  const Geometry& geometry;
  ReadRows read;
  absl::Status operator()(int64_t first_row, int64_t n_rows, float* out) const {
    absl::Status status = read(first_row, n_rows, out);
    if (!status.ok()) return status;
    return CheckFinite(geometry, first_row, absl::MakeSpan(out, n_rows * geometry.cols));
  }
};

}  // namespace

absl::StatusOr<EncodingError> EncodeTensor(const Geometry& geometry, const int8_t* codebook,
                                           const float* column_weights, ReadRows read,
                                           const TensorSink& sink) {
  // EncodeUnit's own: a panel's columns side by side and a value for each group.
  const int64_t scratch_bytes = geometry.layout == Layout::kPanels
                                    ? (geometry.padded_cols() + geometry.groups()) * kPanelRows * 4
                                    : 0;
  return Produce<float>(
      geometry, {1, geometry.cols * 4, scratch_bytes}, sink, CheckedRead{geometry, read},
      [&](const float* rows, int64_t n_rows, uint8_t* unit, EncodingError* error,
          EncodeScratch* scratch) {
        EncodeUnit(geometry, codebook, column_weights, rows, n_rows, unit, error, scratch);
      });
}

namespace {

Step FeedbackStep(const Geometry& geometry) {
  return {kFeedbackRows / kPanelRows, geometry.cols * 4, FeedbackScratchBytes(geometry)};
}

}  // namespace

int64_t LeastFeedbackBytes(const Geometry& geometry) {
  const Step step = FeedbackStep(geometry);
  return kFeedbackRows * step.row_bytes + step.scratch_bytes + step.units * geometry.unit_bytes();
}

absl::StatusOr<EncodingError> EncodeTensorWithFeedback(const Geometry& geometry,
                                                       const int8_t* codebook,
                                                       const ErrorFeedback& feedback, ReadRows read,
                                                       const TensorSink& sink) {
  return Produce<float>(
      geometry, FeedbackStep(geometry), sink, CheckedRead{geometry, read},
      [&](const float* rows, int64_t n_rows, uint8_t* units, EncodingError* error, EncodeScratch*) {
        EncodeWithFeedback(geometry, codebook, feedback, rows, n_rows, units, error);
      });
}

absl::StatusOr<EncodingError> EncodePlainly(absl::string_view, const Geometry& geometry,
                                            const int8_t* codebook, ReadRows read,
                                            const TensorSink& sink) {
  return EncodeTensor(geometry, codebook, nullptr, read, sink);
}

absl::Status RepackTensor(const Geometry& geometry, ReadBlocks read, const TensorSink& sink) {
  const int64_t block_bytes =
      Info(geometry.encoding).scale_bytes + kGroupColumns * Info(geometry.encoding).code_bits / 8;
  const int scale_bytes = Info(geometry.encoding).scale_bytes;
  const auto checked_read = [&](int64_t first_row, int64_t n_rows, uint8_t* out) {
    absl::Status status = read(first_row, n_rows, out);
    if (!status.ok()) return status;
    for (int64_t block = 0; block < n_rows * geometry.groups(); ++block) {
      for (int i = 0; i < scale_bytes; i += 2) {
        uint16_t half;
        std::memcpy(&half, out + block * block_bytes + i, sizeof half);
        if ((half & 0x7c00) != 0x7c00) continue;
        return absl::FailedPreconditionError(
            absl::StrCat("row ", first_row + block / geometry.groups(), ", column ",
                         block % geometry.groups() * kGroupColumns,
                         ": the scale of its block is not finite: weights must be"));
      }
    }
    return absl::OkStatus();
  };
  return Produce<uint8_t>(geometry, {1, geometry.groups() * block_bytes, 0}, sink, checked_read,
                          [&](const uint8_t* rows, int64_t n_rows, uint8_t* unit, EncodingError*,
                              EncodeScratch*) { RepackGgmlUnit(geometry, rows, n_rows, unit); })
      .status();
}

}  // namespace quire
