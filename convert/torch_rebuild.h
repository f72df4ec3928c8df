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

// Collects storages as tensors name them.
class TorchRebuilder {
 public:
  explicit TorchRebuilder(const Pickle& pickle) : p_(pickle) {}

  // True for the call of a function or class that makes a tensor.
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
  std::vector<TorchStorage> storages_;
  absl::flat_hash_map<std::string, int> by_key_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_TORCH_REBUILD_H_
