// Folders as Hugging Face and Meta lay them out.
#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "convert/json_object.h"
#include "convert/quote.h"
#include "convert/shard_merge.h"
#include "format/file.h"

namespace quire {
namespace {

constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 4096;

std::string WithSlash(const std::string& folder) {
  return absl::StrCat(absl::StripSuffix(folder, "/"), "/");
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<std::string> RealPath(const std::string& path) {
  char* resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return ErrnoStatus(errno, absl::StrCat("opening ", path));
  std::string result = resolved;
  free(resolved);
  return result;
}

// The path of a shard that an index names. An index may come from anyone, so its names may not lead
// out of the folder, be it by a symbolic link; but for Hugging Face's cache, where
// snapshots/REVISION/NAME links to ../../blobs/HASH.
absl::StatusOr<std::string> ShardPath(const std::string& folder, const std::string& name) {
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of("/\0", 0, 2) != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": the index names the shard ", Quote(name),
                     ", which is not the plain name of a file in the folder"));
  }
  const std::string path = WithSlash(folder) + name;
  absl::StatusOr<std::string> real_folder = RealPath(folder);
  if (!real_folder.ok()) return real_folder.status();
  absl::StatusOr<std::string> real_file = RealPath(path);
  if (!real_file.ok()) {
    return absl::Status(real_file.status().code(), absl::StrCat("a shard that the index names: ",
                                                                real_file.status().message()));
  }
  if (absl::StartsWith(*real_file, WithSlash(*real_folder))) return path;
  const std::string parent = real_folder->substr(0, real_folder->rfind('/'));
  if (absl::EndsWith(parent, "/snapshots") &&
      absl::StartsWith(*real_file,
                       absl::StrCat(absl::StripSuffix(parent, "snapshots"), "blobs/"))) {
    return path;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": a shard that links to ", Quote(*real_file), ", outside of its folder"));
}

// weight_map of an index: tensor -> shard.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadIndex(
    const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  const absl::StatusOr<nlohmann::json> root = ParseJsonObject(*text, path);
  if (!root.ok()) return root.status();
  if (!root->contains("weight_map") || !(*root)["weight_map"].is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a JSON object with an object 'weight_map'"));
  }
  std::vector<std::pair<std::string, std::string>> result;
  for (const auto& item : (*root)["weight_map"].items()) {
    if (!item.value().is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": 'weight_map' gives for ", Quote(item.key()), " ",
                       JsonObject::Show(item.value()), ", not a file's name"));
    }
    result.emplace_back(item.key(), item.value().get<std::string>());
  }
  if (result.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": 'weight_map' is empty"));
  }
  return result;
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenIndexed(const std::string& folder,
                                                          const std::string& index) {
  const std::string index_path = WithSlash(folder) + index;
  auto weight_map = ReadIndex(index_path);
  if (!weight_map.ok()) return weight_map.status();
  std::set<std::string> names;
  for (const auto& [tensor, shard] : *weight_map) names.insert(shard);
  if (names.size() > kMaxShards) {
    return absl::ResourceExhaustedError(absl::StrCat(
        index_path, ": ", names.size(), " shards; at most ", kMaxShards, " are supported"));
  }
  std::vector<Shard> shards;
  std::set<std::pair<std::string, std::string>> present;  // (tensor, shard)
  for (const std::string& name : names) {
    absl::StatusOr<std::string> path = ShardPath(folder, name);
    if (!path.ok()) return path.status();
    auto source = OpenCheckpointFile(*path);
    if (!source.ok()) return source.status();
    for (const SourceTensor& tensor : (*source)->tensors()) present.emplace(tensor.name, name);
    shards.push_back({name, *std::move(source)});
  }
  for (const auto& entry : *weight_map) {
    if (present.count(entry) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": tensor ", Quote(entry.first),
                                                     " is not in ", Quote(entry.second),
                                                     ", where the index has it"));
    }
  }
  auto united = UniteShards(std::move(shards));
  if (united.ok()) return united;
  return absl::Status(united.status().code(),
                      absl::StrCat(folder, ": ", united.status().message()));
}

// N of "consolidated.NN.pth", or -1.
int ShardNumber(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "consolidated.") || !absl::ConsumeSuffix(&name, ".pth") ||
      name.size() != 2 || !absl::ascii_isdigit(name[0]) || !absl::ascii_isdigit(name[1])) {
    return -1;
  }
  return (name[0] - '0') * 10 + (name[1] - '0');
}

// Numbers of the consolidated.NN.pth in a folder, ascending.
absl::StatusOr<std::vector<int>> ListMetaShards(const std::string& folder) {
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return ErrnoStatus(errno, absl::StrCat("opening ", folder));
  std::vector<int> numbers;
  while (const dirent* entry = readdir(directory)) {
    const int number = ShardNumber(entry->d_name);
    if (number >= 0) numbers.push_back(number);
  }
  closedir(directory);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// Words on a folder in which no checkpoint was found.
std::string WhatItHolds(const std::string& folder) {
  if (Exists(WithSlash(folder) + "adapter_config.json"))
    return "; it holds an adapter (LoRA), which must be merged into its model first";
  std::vector<std::string> names;
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return "";
  while (const dirent* entry = readdir(directory)) {
    const absl::string_view name = entry->d_name;
    for (const char* end : {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf"})
      if (absl::EndsWith(name, end)) names.emplace_back(name);
  }
  closedir(directory);
  if (names.empty()) return "";
  std::sort(names.begin(), names.end());
  return absl::StrCat("; it holds ", Quote(names[0]),
                      names.size() > 1 ? absl::StrCat(" and ", names.size() - 1, " more") : "",
                      ": give a checkpoint's file itself, or the index of its shards");
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenHuggingFaceFolder(const std::string& folder) {
  for (const char* stem : {"model.safetensors", "pytorch_model.bin"}) {
    const std::string path = WithSlash(folder) + stem;
    if (Exists(path)) return OpenCheckpointFile(path);
    const std::string index = absl::StrCat(stem, ".index.json");
    if (Exists(WithSlash(folder) + index)) return OpenIndexed(folder, index);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      folder, ": a folder without model.safetensors, pytorch_model.bin or their .index.json",
      WhatItHolds(folder)));
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenMetaFolder(const std::string& folder) {
  absl::StatusOr<std::vector<int>> numbers = ListMetaShards(folder);
  if (!numbers.ok()) return numbers.status();
  if (numbers->empty()) {
    for (const char* single : {"consolidated.safetensors", "consolidated.pth"}) {
      if (Exists(WithSlash(folder) + single)) return OpenCheckpointFile(WithSlash(folder) + single);
    }
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": a folder without consolidated.00.pth"));
  }
  std::vector<Shard> shards;
  for (size_t i = 0; i < numbers->size(); ++i) {
    const std::string name = absl::StrCat("consolidated.", i < 10 ? "0" : "", i, ".pth");
    if ((*numbers)[i] != static_cast<int>(i)) {
      return absl::NotFoundError(absl::StrCat(folder, ": shard ", name, " is missing, shard ",
                                              (*numbers)[i], " is there"));
    }
    auto source = OpenCheckpointFile(WithSlash(folder) + name);
    if (!source.ok()) return source.status();
    shards.push_back({name, *std::move(source)});
  }
  if (shards.size() == 1) return std::move(shards.front().source);
  auto joined = JoinTensorParallel(std::move(shards));
  if (joined.ok()) return joined;
  return absl::Status(joined.status().code(),
                      absl::StrCat(folder, ": ", joined.status().message()));
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenCheckpoint(const std::string& path) {
  if (!IsFolder(path)) return OpenCheckpointFile(path);
  for (const char* name :
       {"config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json",
        "model.safetensors", "pytorch_model.bin"}) {
    if (Exists(WithSlash(path) + name)) return OpenHuggingFaceFolder(path);
  }
  for (const char* name : {"params.json", "consolidated.00.pth", "consolidated.pth"}) {
    if (Exists(WithSlash(path) + name)) return OpenMetaFolder(path);
  }
  if (Exists(WithSlash(path) + ".metadata")) {
    return absl::UnimplementedError(
        absl::StrCat(path,
                     ": a folder of torch.distributed.checkpoint; make one file of it first, with "
                     "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": a folder without config.json, params.json or model.safetensors", WhatItHolds(path)));
}

}  // namespace quire
