// What the pickle of a torch checkpoint lists: tensors as views of storages, and settings.
#ifndef QUIRE_CONVERT_TORCH_LISTING_H_
#define QUIRE_CONVERT_TORCH_LISTING_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "convert/pickle_vm.h"
#include "convert/strided_read.h"
#include "convert/tensor_source.h"

namespace quire {

// Of a tensor's dotted name.
inline constexpr int kMaxTensorNameBytes = 1024;
// torch's own limit is 64 in most operations.
inline constexpr int kMaxTensorRank = 64;
inline constexpr int64_t kMaxTorchTensors = 1 << 20;
// Names, shapes and settings together. A 7B model's take 60 KB, a
// vocabulary of 250,000 words beside it 28 MB.
inline constexpr int64_t kMaxListingBytes = int64_t{32} << 20;
// By how much a view may be larger than its storage, whose elements it then repeats: an expanded
// causal mask of 16384 x 16384 booleans is that large.
inline constexpr int64_t kMaxRepeatedBytes = int64_t{256} << 20;
// Lists of plain values with more items, and longer strings, are data rather than settings, and
// left out of metadata.
inline constexpr size_t kMaxMetadataItems = 4096;
inline constexpr int64_t kMaxMetadataBytes = 1 << 20;

// A run of bytes that tensors are views of.
struct TorchStorage {
  std::string key;  // names its record, or its place in the stream
  DType dtype = DType::kU8;
  const char* unsupported = nullptr;  // name of an element type without a DType
  bool untyped = false;
  int64_t elements = 0;  // of dtype
  int64_t bytes = 0;
};

struct TorchView {
  int storage = 0;   // into storages
  StridedView view;  // lies inside the storage
};

struct TorchListing {
  std::vector<SourceTensor> tensors;  // in the order of the pickle
  std::vector<TorchView> views;       // one for each tensor
  std::vector<TorchStorage> storages;
  std::vector<std::pair<std::string, std::string>> metadata;  // dotted path, JSON text
};

struct RebuiltTensor;
using TarTensors = absl::flat_hash_map<int64_t, RebuiltTensor>;

// `place` begins the messages. InvalidArgument: tensors outside of their storage, names that are no
// UTF-8 or not unique, ...; Unimplemented: sparse, quantized and other tensors, naming the tensor;
// ResourceExhausted: over a limit above. `tar`: tensors that the pickle names by number
// (torch_rebuild.h); their storages are the caller's to list.
absl::StatusOr<TorchListing> ListTorchTensors(const Pickle& pickle, absl::string_view place,
                                              const TarTensors* tar = nullptr);

}  // namespace quire

#endif  // QUIRE_CONVERT_TORCH_LISTING_H_
