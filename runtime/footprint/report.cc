#include "runtime/footprint/report.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "format/command_line.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value.has_value() ? Json(*value) : Json(nullptr);
}

std::string OrUnknown(const std::optional<int64_t>& bytes) {
  return bytes.has_value() ? HumanBytes(*bytes) : "unknown";
}

std::string Percent(int64_t part, int64_t whole) {
  return absl::StrFormat("%.1f%%", whole > 0 ? 100.0 * part / whole : 0.0);
}

Json LedgerJson(const Ledger& l) {
  return {{"rss_bytes", l.rss},
          {"rss_anon_bytes", l.anonymous},
          {"rss_weights_bytes", l.weights},
          {"rss_other_files_bytes", l.other_files},
          {"kv_cache_resident_bytes", l.kv_cache},
          {"scratch_resident_bytes", l.scratch},
          {"stream_buffer_resident_bytes", l.stream},
          {"other_anon_bytes", l.other_anonymous},
          {"pss_bytes", l.pss},
          {"weights_pss_bytes", l.weights_pss},
          {"weights_anon_bytes", l.weights_anonymous},
          {"weights_private_dirty_bytes", l.weights_private_dirty},
          {"swap_bytes", l.swap},
          {"page_tables_bytes", l.page_tables},
          {"virtual_bytes", l.address_space}};
}

}  // namespace

std::vector<KindFootprint> ByKind(const std::vector<TensorFootprint>& tensors) {
  std::vector<KindFootprint> kinds;
  for (const TensorFootprint& tensor : tensors) {
    std::string kind = tensor.name;
    if (absl::StartsWith(kind, "layers.")) kind = kind.substr(kind.rfind('.') + 1);
    auto it = std::find_if(kinds.begin(), kinds.end(),
                           [&](const KindFootprint& k) { return k.kind == kind; });
    if (it == kinds.end()) it = kinds.insert(kinds.end(), KindFootprint{kind});
    it->tensors += 1;
    it->bytes += tensor.bytes;
    it->touched += tensor.touched.value_or(0);
  }
  return kinds;
}

int64_t ResidentOutsideTensors(const Footprint& f) {
  int64_t outside = 0, end = 0;
  for (const TensorFootprint& tensor : f.tensors) {
    outside += f.residency->BytesIn(end, tensor.offset);
    end = tensor.offset + tensor.bytes;
  }
  return outside + f.residency->BytesIn(end, f.file_bytes);
}

std::string TextReport(const Footprint& f) {
  const Ledger& l = f.last().ledger;
  std::string out = absl::StrFormat(
      "%s: %s in %d tensors, %s, %d layers\n%d tokens, context %d, %d threads, %s kernels\n\n",
      f.path, HumanBytes(f.file_bytes), f.tensors.size(), f.architecture, f.n_layers, f.tokens,
      f.ctx, f.threads, f.kernels);
  const auto line = [&](int indent, const char* what, int64_t bytes, const std::string& note) {
    absl::StrAppendFormat(&out, "%s%-*s %10s%s%s\n", std::string(indent, ' '), 46 - indent, what,
                          HumanBytes(bytes), note.empty() ? "" : "   ", note);
  };
  out += "In memory now, as this process sees it (RSS)\n";
  line(0, "RSS = own + files", l.rss, "what top, htop and ps show");
  line(2, "own (anonymous): used up for good", l.anonymous, "");
  line(4, "KV cache", l.kv_cache, absl::StrCat("touched of ", HumanBytes(f.own.kv_cache_bytes)));
  line(4, "scratch", l.scratch, absl::StrCat("touched of ", HumanBytes(f.own.scratch_bytes)));
  if (l.stream > 0) line(4, "buffers for streamed weights", l.stream, "");
  line(4, "heap, stacks, the program's data", l.other_anonymous, "");
  line(2, "files: page cache, shared with everybody", l.weights + l.other_files, "");
  line(4, "weights mapped here", l.weights,
       absl::StrCat(Percent(l.weights, f.file_bytes), " of the file"));
  line(4, "program and libraries", l.other_files, "");
  out += "Beside it\n";
  line(2, "fair share (PSS)", l.pss, "each shared page divided by the processes that map it");
  line(2, "copies of weights", l.weights_anonymous,
       l.weights_anonymous == 0 ? "as it should be" : "should be 0: please report this");
  if (l.weights_private_dirty > l.weights_anonymous) {
    line(2, "weights not yet on disk", l.weights_private_dirty - l.weights_anonymous,
         "the file has just been written");
  }
  line(2, "page tables", l.page_tables, "the kernel's, to map all this");
  if (l.swap > 0) line(2, "swapped out", l.swap, "");
  absl::StrAppendFormat(
      &out, "  %-44s %10s%s\n", "file in the page cache", OrUnknown(f.last().cached),
      f.last().cached.has_value() ? absl::StrCat("   ", Percent(*f.last().cached, f.file_bytes),
                                                 ", whoever brought it there")
                                  : "");
  absl::StrAppendFormat(&out, "  %-44s %10s   %d major faults, %d minor\n", "read from storage",
                        HumanBytes(f.io.read_bytes), f.stat.major_faults, f.stat.minor_faults);

  absl::StrAppendFormat(&out, "\n%-14s %10s %12s %14s %14s\n", "Over time", "ms", "own",
                        "weights mapped", "file cached");
  for (const Stage& stage : f.stages) {
    absl::StrAppendFormat(&out, "%-14s %10.1f %12s %14s %14s\n", stage.name, stage.ms,
                          HumanBytes(stage.ledger.anonymous), HumanBytes(stage.ledger.weights),
                          OrUnknown(stage.cached));
  }

  if (f.touched_per_token.has_value()) {
    absl::StrAppendFormat(&out, "\nOne token reads %s, %s of the file\n",
                          HumanBytes(*f.touched_per_token),
                          Percent(*f.touched_per_token, f.file_bytes));
    for (const KindFootprint& kind : ByKind(f.tensors)) {
      absl::StrAppendFormat(&out, "  %-14s x %-4d %10s of %10s  %6s\n", kind.kind, kind.tensors,
                            HumanBytes(kind.touched), HumanBytes(kind.bytes),
                            Percent(kind.touched, kind.bytes));
    }
  }
  if (!f.streamed_note.empty()) absl::StrAppend(&out, "\n", f.streamed_note, "\n");
  out += "\nWhat tools show at this moment\n";
  for (const ToolFigure& tool : ToolFigures(l, f.machine, f.cgroup)) {
    absl::StrAppendFormat(&out, "  %-20s %-10s %10s  %s\n", tool.tool, tool.column,
                          HumanBytes(tool.bytes), tool.formula);
  }
  for (const std::string& note : {f.residency_note, f.touched_note}) {
    if (!note.empty()) absl::StrAppend(&out, "\nunknown: ", note, "\n");
  }
  return out;
}

std::string JsonReport(const Footprint& f) {
  Json report = {{"model", f.path},
                 {"file_bytes", f.file_bytes},
                 {"mapped_bytes", f.file_bytes},
                 {"resident_file_bytes", OrNull(f.last().cached)},
                 {"rss_anon_bytes", f.last().ledger.anonymous},
                 {"kv_cache_bytes", f.own.kv_cache_bytes},
                 {"scratch_bytes", f.own.scratch_bytes},
                 {"stream_buffer_bytes", f.own.stream_bytes},
                 {"weights_kept_bytes", f.residence.kept_bytes},
                 {"weights_streamed_bytes", f.residence.streamed_bytes},
                 {"residence_changes", f.residence_changes},
                 {"touched_per_token_bytes", OrNull(f.touched_per_token)},
                 {"architecture", f.architecture},
                 {"tokens", f.tokens},
                 {"ctx", f.ctx},
                 {"threads", f.threads},
                 {"kernels", f.kernels},
                 {"ledger", LedgerJson(f.last().ledger)},
                 {"read_bytes", f.io.read_bytes},
                 {"major_faults", f.stat.major_faults},
                 {"minor_faults", f.stat.minor_faults}};
  for (const Stage& stage : f.stages) {
    Json one = {
        {"name", stage.name}, {"ms", stage.ms}, {"resident_file_bytes", OrNull(stage.cached)}};
    one.update(LedgerJson(stage.ledger));
    report["stages"].push_back(std::move(one));
  }
  for (const ToolFigure& tool : ToolFigures(f.last().ledger, f.machine, f.cgroup)) {
    report["tools"].push_back({{"tool", tool.tool},
                               {"column", tool.column},
                               {"bytes", tool.bytes},
                               {"is", tool.formula}});
  }
  report["outside_tensors_resident_bytes"] =
      f.residency.has_value() ? Json(ResidentOutsideTensors(f)) : Json(nullptr);
  report["tensors"] = Json::array();
  for (const TensorFootprint& tensor : f.tensors) {
    report["tensors"].push_back({{"name", tensor.name},
                                 {"bytes", tensor.bytes},
                                 {"resident_bytes", OrNull(tensor.resident)},
                                 {"touched_bytes", OrNull(tensor.touched)},
                                 {"streamed", tensor.streamed}});
  }
  report["notes"] = Json::array();
  for (const std::string& note : {f.residency_note, f.touched_note}) {
    if (!note.empty()) report["notes"].push_back(note);
  }
  return report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace quire
