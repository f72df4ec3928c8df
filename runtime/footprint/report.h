// A measured footprint for people and for programs.
#ifndef QUIRE_RUNTIME_FOOTPRINT_REPORT_H_
#define QUIRE_RUNTIME_FOOTPRINT_REPORT_H_

#include <string>
#include <utility>
#include <vector>

#include "runtime/footprint/measure.h"

namespace quire {

// Tensors of one kind ("wq" of all layers, "embedding"), added up.
struct KindFootprint {
  std::string kind;
  int64_t tensors = 0, bytes = 0, touched = 0;
};
std::vector<KindFootprint> ByKind(const std::vector<TensorFootprint>& tensors);

// Bytes of the file in the page cache that belong to no tensor: header, manifest, tokenizer,
// padding. Precondition: footprint.residency.
int64_t ResidentOutsideTensors(const Footprint& footprint);

std::string TextReport(const Footprint& footprint);
// Keys that other programs rely on: file_bytes, mapped_bytes, resident_file_bytes, rss_anon_bytes,
// kv_cache_bytes, scratch_bytes, touched_per_token_bytes, tensors [{name, bytes, resident_bytes,
// touched_bytes}]. What the kernel did not tell is null, and "notes" says why.
std::string JsonReport(const Footprint& footprint);
// One page that needs nothing else: no script, no network.
std::string HtmlReport(const Footprint& footprint);

}  // namespace quire

#endif  // QUIRE_RUNTIME_FOOTPRINT_REPORT_H_
