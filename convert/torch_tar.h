// What torch.save wrote before 0.2: a tar archive of a pickle, tensors, and storages.
#ifndef QUIRE_CONVERT_TORCH_TAR_H_
#define QUIRE_CONVERT_TORCH_TAR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "convert/tensor_source.h"
#include "format/file.h"

namespace quire {

// Precondition: IsTar(file). Errors of OpenTorchLegacy, which is its caller.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenTorchTar(File file);

}  // namespace quire

#endif  // QUIRE_CONVERT_TORCH_TAR_H_
