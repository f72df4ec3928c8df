// The globals a checkpoint's pickle may name, and what each stands for here. Nothing is imported or
// called: a global is a row of this table or the pickle is refused.
#ifndef QUIRE_CONVERT_PICKLE_GLOBALS_H_
#define QUIRE_CONVERT_PICKLE_GLOBALS_H_

#include "absl/strings/string_view.h"
#include "convert/tensor_source.h"

namespace quire {

enum class GlobalRole : uint8_t {
  // Classes of plain data.
  kDictClass,       // made empty, or of pairs; then filled like a dict
  kListClass,       // made empty, or of a list; then filled like a list
  kNamespaceClass,  // an object whose attributes are its content
  kObjectClass,     // an object kept as what it was made of; its content is of no interest
  kConstant,        // a thing that is only named: a dtype, a layout, a class used as a key
  // What torch.save makes tensors of.
  kStorageType,        // torch.FloatStorage: element type of a storage
  kDType,              // torch.float32
  kTensorClass,        // torch.Tensor, named by _rebuild_from_type_v2
  kRebuildTensor,      // (storage, offset, size, stride[, requires_grad, hooks[, metadata]])
  kRebuildTensorV3,    // (storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])
  kRebuildParameter,   // (tensor, ...)
  kRebuildFromType,    // (function, type, arguments, state)
  kUnsupportedTensor,  // another kind of tensor; `note` says which
  kUnsupportedClass,   // the same, where the classes that follow would be unknown: refused at once
};

struct PickleGlobal {
  const char* module;
  const char* name;
  GlobalRole role;
  // Of kStorageType and kDType.
  DType dtype = DType::kU8;
  bool has_dtype = false;  // false: `note` names a dtype that SourceTensor has no word for
  bool untyped = false;    // a storage of bytes
  const char* note = "";
};

// The row of exactly this module and name, or null.
const PickleGlobal* FindPickleGlobal(absl::string_view module, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_CONVERT_PICKLE_GLOBALS_H_
