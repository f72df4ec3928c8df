#include "convert/inspect_checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "format/command_line.h"
#include "format/xxh3.h"

namespace quire {
namespace {

constexpr int64_t kBufferBytes = 4 << 20;

using nlohmann::ordered_json;

std::string Dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string Hex(uint64_t xxh3) { return absl::StrCat(absl::Hex(xxh3, absl::kZeroPad16)); }

// One line a tensor, so that the list of a large checkpoint needs no tree in memory.
void PrintJson(const TensorSource& source, const std::vector<std::optional<uint64_t>>& checksums) {
  std::cout << "{\"container\": " << Dump(std::string(source.container())) << ",\n \"files\": [";
  const char* comma = "";
  for (const auto& [name, bytes] : source.files()) {
    std::cout << comma << Dump({{"name", name}, {"bytes", bytes}});
    comma = ", ";
  }
  std::cout << "],\n \"tensors\": [";
  comma = "\n  ";
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const SourceTensor& tensor = source.tensors()[i];
    ordered_json row = {
        {"name", tensor.name}, {"shape", tensor.shape}, {"dtype", Info(tensor.dtype).name}};
    if (!checksums.empty() && checksums[i]) row["xxh3"] = Hex(*checksums[i]);
    std::cout << comma << Dump(row);
    comma = ",\n  ";
  }
  std::cout << "],\n \"metadata\": {";
  comma = "\n  ";
  for (const auto& [name, json] : source.metadata()) {
    std::cout << comma << Dump(name) << ": " << json;
    comma = ",\n  ";
  }
  std::cout << "}}\n";
}

void PrintText(const std::string& path, const TensorSource& source, bool tensors,
               const std::vector<std::optional<uint64_t>>& checksums) {
  int64_t file_bytes = 0, elements = 0;
  std::map<std::string, std::pair<int64_t, int64_t>> by_dtype;  // tensors, bytes
  for (const auto& [name, bytes] : source.files()) file_bytes += bytes;
  std::set<int> shared;  // tied tensors are the same bytes, and counted once
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const SourceTensor& tensor = source.tensors()[i];
    auto& [count, bytes] = by_dtype[Info(tensor.dtype).name];
    ++count;
    const int alias = source.Alias(static_cast<int>(i));
    if (alias >= 0 && !shared.insert(alias).second) continue;
    elements += tensor.elements();
    bytes += tensor.bytes();
  }
  std::cout << absl::StreamFormat("%s: %s, %d file%s of %s, %d tensors of %d elements\n", path,
                                  source.container(), source.files().size(),
                                  source.files().size() == 1 ? "" : "s", HumanBytes(file_bytes),
                                  source.tensors().size(), elements);
  for (const auto& [dtype, sum] : by_dtype) {
    std::cout << absl::StreamFormat("  %-16s %6d tensors  %s\n", dtype, sum.first,
                                    HumanBytes(sum.second));
  }
  if (!tensors && checksums.empty()) return;
  size_t width = 0;
  for (const SourceTensor& tensor : source.tensors()) width = std::max(width, tensor.name.size());
  width = std::min<size_t>(width, 60);
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const SourceTensor& tensor = source.tensors()[i];
    std::cout << absl::StreamFormat("%-*s  %-14s [%s]%s", static_cast<int>(width), tensor.name,
                                    Info(tensor.dtype).name, absl::StrJoin(tensor.shape, ", "),
                                    source.Alias(i) >= 0 ? "  (shared)" : "");
    if (!checksums.empty() && checksums[i]) std::cout << "  " << Hex(*checksums[i]);
    std::cout << "\n";
  }
}

}  // namespace

absl::StatusOr<uint64_t> ChecksumTensor(const TensorSource& source, int index) {
  if (auto s = source.Verify(index); !s.ok()) return s;
  const SourceTensor& tensor = source.tensors()[index];
  const DTypeInfo& info = Info(tensor.dtype);
  const int64_t elements = tensor.elements();
  const int64_t step = kBufferBytes / info.block_bytes * info.block_elements;
  std::vector<uint8_t> buffer(std::min(tensor.bytes(), kBufferBytes));
  Xxh3 sum;
  for (int64_t begin = 0; begin < elements; begin += step) {
    const int64_t count = std::min(step, elements - begin);
    const auto out = absl::MakeSpan(buffer.data(), count / info.block_elements * info.block_bytes);
    if (auto s = source.Read(index, begin, count, out); !s.ok()) return s;
    sum.Update(out.data(), out.size());
  }
  return sum.Digest();
}

absl::StatusOr<std::vector<std::optional<uint64_t>>> ChecksumTensors(const TensorSource& source,
                                                                     const std::string& place) {
  const absl::Span<const SourceTensor> tensors = source.tensors();
  double total = 0;
  // Shared tensors of one shape are one.
  using Elements = std::pair<int, absl::Span<const int64_t>>;
  absl::flat_hash_map<Elements, size_t> shared;
  std::vector<size_t> first(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int alias = source.Alias(static_cast<int>(i));
    first[i] = alias < 0 ? i : shared.emplace(Elements(alias, tensors[i].shape), i).first->second;
    if (first[i] < i) continue;
    total += static_cast<double>(tensors[i].bytes());
  }
  if (absl::Status s = CheckProportion(source, total, place); !s.ok()) return s;
  std::vector<std::optional<uint64_t>> sums(tensors.size());
  Progress progress("inspect", static_cast<int64_t>(total));
  int64_t done = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (first[i] < i) {
      sums[i] = sums[first[i]];
    } else if (Info(tensors[i].dtype).block_bytes > 0) {
      absl::StatusOr<uint64_t> sum = ChecksumTensor(source, static_cast<int>(i));
      if (!sum.ok()) return sum.status();
      sums[i] = *sum;
      progress.Update(done += tensors[i].bytes());
    }
  }
  return sums;
}

int InspectCheckpoint(const std::string& path, bool tensors, bool checksums, bool json) {
  absl::StatusOr<std::unique_ptr<TensorSource>> source = OpenCheckpoint(path);
  if (!source.ok()) return Report(source.status());
  auto sums = checksums ? ChecksumTensors(**source, path) : std::vector<std::optional<uint64_t>>();
  if (!sums.ok()) return Report(sums.status());
  if (json) {
    PrintJson(**source, *sums);
  } else {
    PrintText(path, **source, tensors, *sums);
  }
  std::cout.flush();
  return std::cout ? kExitOk : Report(absl::DataLossError("writing to standard output failed"));
}

}  // namespace quire
