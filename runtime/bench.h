// Load time, memory and speed, measured in processes of their own.
#ifndef QUIRE_RUNTIME_BENCH_H_
#define QUIRE_RUNTIME_BENCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire {

struct BenchOptions {
  int64_t prompt_tokens = 128;
  int64_t tokens = 32;
  int64_t repetitions = 3;
  bool cold = false;      // the file's pages are dropped from the page cache before each repetition
  int64_t processes = 1;  // at once
  int64_t memory_limit = 0;  // bytes for all processes together, page cache included; 0: none
  int64_t threads = 0;       // of each process; 0: the CPUs there are
  int64_t resident = 0;      // memory for the weights of a process; 0: the limits decide
};

// One process, while all of them are alive and have generated.
struct ProcessFigures {
  int64_t rss_anon_bytes = 0, rss_file_bytes = 0, pss_bytes = 0, private_dirty_bytes = 0;
  int64_t peak_rss_bytes = 0;
  int64_t minor_faults = 0, major_faults = 0;
  int64_t read_bytes = 0;  // from storage
};

// Medians over all processes of all repetitions, where nothing else is said.
struct BenchResult {
  int64_t model_bytes = 0;
  double open_ms = 0;         // map, header, manifest
  double ready_ms = 0;        // from process start until the first token of the prompt could go in
  double first_token_ms = 0;  // from process start, prompt included
  double prefill_tokens_per_second = 0;  // of a second prompt in the same process
  double decode_tokens_per_second = 0;
  int64_t decode_bytes_per_token = 0;  // of weights
  int64_t prefill_ops_per_token = 0;   // a multiply and an add are two
  // The roofs (roof.h), the better of what was measured before and after a repetition.
  double memory_read_bytes_per_second = 0;
  double compute_ops_per_second = 0;              // int8, or f32 where the weights are floats
  int64_t kv_cache_bytes = 0, scratch_bytes = 0;  // of one process
  int64_t weights_kept_bytes = 0, weights_streamed_bytes = 0;  // of a process, at its end
  int64_t stream_buffer_bytes = 0;
  double disk_read_bytes_per_second = 0;  // measured right after, where weights are streamed
  int64_t threads = 0;
  std::string kernels;
  int64_t resident_before_bytes = 0;  // of the file in the page cache, before the last repetition
  std::vector<ProcessFigures> processes;  // of the last repetition
  int64_t total_pss_bytes = 0;
};

// Starts this executable again, `bench MODEL --worker ...`, for each process and repetition.
// Aborted where a process has failed and has said why on stderr; FailedPrecondition where it was
// killed, or a limit cannot be set.
absl::StatusOr<BenchResult> MeasureBench(const std::string& path, const BenchOptions& options);

// What such a process does: generates, prints one line of figures, waits for stdin to be closed.
absl::Status BenchWorker(const std::string& path, const BenchOptions& options);

}  // namespace quire

#endif  // QUIRE_RUNTIME_BENCH_H_
