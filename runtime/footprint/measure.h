// Runs a few tokens and keeps book of memory: what `quire footprint` reports.
#ifndef QUIRE_RUNTIME_FOOTPRINT_MEASURE_H_
#define QUIRE_RUNTIME_FOOTPRINT_MEASURE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/footprint/cgroup.h"
#include "runtime/footprint/ledger.h"
#include "runtime/footprint/proc.h"
#include "runtime/footprint/residency.h"
#include "runtime/footprint/timeline.h"
#include "runtime/session.h"

namespace quire {

struct TensorFootprint {
  std::string name;
  int64_t offset = 0, bytes = 0;
  std::optional<int64_t> resident;  // in the page cache
  std::optional<int64_t> touched;   // read to generate one token, in whole pages
  bool streamed = false;            // past the mapping
};

// A moment of the run.
struct Stage {
  std::string name;
  double ms = 0;  // since the timeline began
  Ledger ledger;
  std::optional<int64_t> cached;  // the file's bytes in the page cache
};

struct Footprint {
  std::string path, architecture, kernels;
  int64_t file_bytes = 0;  // all of which is mapped
  int64_t n_layers = 0, threads = 0, ctx = 0, tokens = 0;
  RuntimeMemory own;
  Residence residence;        // what is kept and what is streamed
  int64_t residence_changes = 0;
  std::string streamed_note;  // empty where nothing is
  std::vector<Stage> stages;  // start, open, first token, steady state
  std::vector<TimelineSample> timeline;
  std::vector<TensorFootprint> tensors;  // in file order
  std::optional<Residency> residency;    // at the end; absent: see residency_note
  std::string residency_note;
  std::optional<int64_t> touched_per_token;  // absent: see touched_note
  std::string touched_note;
  MemInfo machine;
  std::optional<CgroupMemory> cgroup;
  ProcIo io;      // of the whole process so far
  ProcStat stat;  // likewise: its faults

  const Stage& last() const { return stages.back(); }
};

// Opens `path`, continues a short prompt by `tokens` tokens (>= 1), and measures on the way. What
// the kernel does not tell is left out, with a note; errors are those of Session::Open and
// Generate, and FailedPrecondition where there is no /proc/self/smaps at all.
absl::StatusOr<Footprint> MeasureFootprint(const std::string& path, const SessionOptions& options,
                                           int64_t tokens);

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_MEASURE_H_
