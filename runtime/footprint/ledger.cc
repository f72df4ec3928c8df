#include "runtime/footprint/ledger.h"

#include <algorithm>

#include "absl/status/status.h"
#include "format/command_line.h"
#include "format/kernel_text.h"

namespace quire {

Ledger Reconcile(const std::vector<SmapsEntry>& smaps, const ProcessMemory& status, uint64_t begin,
                 uint64_t bytes, const RuntimeMemory& own) {
  Ledger ledger;
  std::vector<SmapsEntry> model;
  for (const SmapsEntry& entry : smaps) {
    if (entry.begin >= begin && entry.begin < begin + bytes) model.push_back(entry);
  }
  const MappingCounts all = Sum(smaps), weights = Sum(model);
  ledger.rss = all.rss;
  ledger.anonymous = all.anonymous;
  ledger.kv_cache = own.kv_cache_resident;
  ledger.scratch = own.scratch_resident;
  ledger.stream = own.stream_resident;
  ledger.other_anonymous =
      all.anonymous - own.kv_cache_resident - own.scratch_resident - own.stream_resident;
  ledger.weights_anonymous = weights.anonymous;
  ledger.weights = weights.rss - weights.anonymous;
  ledger.other_files = all.rss - all.anonymous - ledger.weights;
  ledger.pss = all.pss;
  ledger.weights_pss = weights.pss;
  ledger.weights_private_dirty = weights.private_dirty;
  ledger.swap = all.swap;
  ledger.page_tables = status.page_tables;
  ledger.address_space = status.address_space;
  return ledger;
}

absl::StatusOr<Ledger> ReadLedger(const MappedFile& file, const RuntimeMemory& own) {
  const absl::StatusOr<std::string> smaps = ReadKernelText("/proc/self/smaps");
  if (!smaps.ok()) {
    return absl::FailedPreconditionError(
        std::string(smaps.status().message()) +
        ": the footprint is read from there, and this kernel does not offer it");
  }
  return Reconcile(ParseSmaps(*smaps), ReadProcessMemory(), reinterpret_cast<uint64_t>(file.data()),
                   file.size(), own);
}

std::vector<ToolFigure> ToolFigures(const Ledger& ledger, const MemInfo& machine,
                                    const std::optional<CgroupMemory>& cgroup) {
  const int64_t files = ledger.weights + ledger.other_files;
  std::vector<ToolFigure> rows = {
      {"top, htop", "VIRT", "addresses handed out", ledger.address_space,
       "Says nothing about RAM: the whole file counts, read or not."},
      {"top, htop, ps", "RES, RSS", "own memory + mapped files", ledger.rss,
       "Counts the weights in full in every process that maps them, and only those pages that this "
       "process has already reached."},
      {"top, htop", "SHR", "mapped files", files,
       "The part of RES that is also page cache. Grows as the weights are first used; nothing is "
       "allocated when it does."},
      {"top", "RES - SHR", "own memory", ledger.anonymous,
       "What ending this process would certainly give back."},
      {"smem, smaps_rollup", "PSS", "own memory + a fair share of what is shared", ledger.pss,
       "The only figure that may be added up over processes."},
      {"free", "used", "MemTotal - MemAvailable", machine.total - machine.available,
       "Of the whole machine. The weights are not in it: page cache counts as available."},
      {"free", "buff/cache", "page cache of all files",
       machine.buffers + machine.cached + machine.reclaimable,
       "Of the whole machine. The weights are here, once, however many processes map them, and "
       "stay here after the last one ends."},
  };
  if (cgroup.has_value()) {
    rows.push_back({"docker stats", "MEM USAGE", "cgroup's usage - inactive page cache",
                    std::max<int64_t>(0, cgroup->usage - cgroup->inactive_file),
                    "Weights count while the kernel's lists call them active, and only in the "
                    "cgroup that was first to read them."});
    rows.push_back({"a cgroup's limit", "usage", "own memory + page cache first read here + kernel",
                    cgroup->usage,
                    cgroup->limit == kNoLimit
                        ? "No limit is set. Page cache is dropped before a limit kills anything."
                        : "The limit is " + HumanBytes(cgroup->limit) +
                              ". Page cache is dropped before it kills anything."});
  }
  return rows;
}

}  // namespace quire
