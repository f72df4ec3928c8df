// Tensors from the recorded calls of torch's rebuild functions, checked against their storages.
#ifndef QUIRE_CONVERT_TORCH_REBUILD_H_
#define QUIRE_CONVERT_TORCH_REBUILD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "convert/pickle_vm.h"
#include "convert/torch_listing.h"

namespace quire {

struct RebuiltTensor {
  DType dtype;
  TorchView view;
};

// Tensors that stand outside of the pickle (in tar files), by the persistent ids that name them.
using TarTensors = absl::flat_hash_map<int64_t, RebuiltTensor>;

// Sets the view's offset to `offset` elements from `begin_bytes` of its storage, and checks that
// the view (shape, strides and element_bytes are set) lies inside of the `bytes` there, does not
// wrap, and does not repeat them beyond kMaxRepeatedBytes. InvalidArgument, ResourceExhausted.
absl::Status PlaceView(int64_t offset, int64_t begin_bytes, int64_t bytes, const std::string& place,
                       StridedView* view);

// Collects storages as tensors name them.
class TorchRebuilder {
 public:
  // Both arguments must outlive it; tar: null for other files.
  TorchRebuilder(const Pickle& pickle, const TarTensors* tar) : p_(pickle), tar_(tar) {}

  // True for the call of a function or class that makes a tensor, and for the id of one.
  bool IsTensor(Pickle::Ref r) const;

  // Precondition: IsTensor. `place` begins the messages, "x.pt: tensor 'a.b'".
  absl::StatusOr<RebuiltTensor> Rebuild(Pickle::Ref r, const std::string& place);

  // Notes every storage that the pickle mentions, also outside of tensors. InvalidArgument where a
  // persistent id is not that of a storage.
  absl::Status NoteStorages(const std::string& place);

  std::vector<TorchStorage> TakeStorages() { return std::move(storages_); }

 private:
  struct StorageView {  // the part of a storage that a persistent id names; all of it but in
    int storage;        // legacy files
    int64_t offset_bytes;
    int64_t bytes;
  };

  absl::StatusOr<RebuiltTensor> Call(const PickleGlobal& function, Pickle::Ref arguments,
                                     const std::string& place);
  absl::StatusOr<RebuiltTensor> FromStorage(const PickleGlobal& function,
                                            absl::Span<const Pickle::Ref> args,
                                            const std::string& place);
  absl::StatusOr<StorageView> FindStorage(Pickle::Ref r, const std::string& place);
  absl::Status ReadIntegers(Pickle::Ref r, absl::string_view what, const std::string& place,
                            std::vector<int64_t>* out) const;

  const Pickle& p_;
  const TarTensors* const tar_;
  std::vector<TorchStorage> storages_;
  absl::flat_hash_map<std::string, int> by_key_;
  absl::flat_hash_map<std::string, StorageView> views_;  // by their own keys
};

}  // namespace quire

#endif  // QUIRE_CONVERT_TORCH_REBUILD_H_
