// Safetensors files: which tensor goes into which, and what stands before their bytes.
#ifndef QUIRE_CONVERT_EXPORT_SAFETENSORS_LAYOUT_H_
#define QUIRE_CONVERT_EXPORT_SAFETENSORS_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "convert/export/output_tensor.h"

namespace quire {

struct SafetensorsFile {
  std::string name;  // model.safetensors, model-00001-of-00003.safetensors
  std::string head;  // length and JSON header
  std::vector<OutputTensor> tensors;
  int64_t bytes = 0;
};
struct SafetensorsLayout {
  std::vector<SafetensorsFile> files;
  std::string index;  // model.safetensors.index.json; empty where there is one file
};

// Tensors in their order, a new file where one would exceed max_file_bytes; offsets are set.
// OutputTensor::type is one of safetensors' names.
SafetensorsLayout LayOutSafetensors(std::vector<OutputTensor> tensors, int64_t max_file_bytes);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_SAFETENSORS_LAYOUT_H_
