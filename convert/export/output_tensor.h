// The tensors of an export: what each is called, how its rows are coded, and writing them.
#ifndef QUIRE_CONVERT_EXPORT_OUTPUT_TENSOR_H_
#define QUIRE_CONVERT_EXPORT_OUTPUT_TENSOR_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "convert/architecture.h"
#include "convert/export/export.h"
#include "convert/export/stored_rows.h"
#include "format/model_file.h"
#include "format/new_file.h"
#include "format/thread_pool.h"

namespace quire {

// A tensor of the model and its names elsewhere.
struct ModelTensor {
  const TensorView* view;
  const TensorNames* names;
  int layer;  // -1 outside the layers
};
// All tensors of the model, in file order. InvalidArgument where a name or shape is not that of a
// model of its configuration, or one is missing.
absl::StatusOr<std::vector<ModelTensor>> ListModelTensors(const ModelFile& model);

struct RowError {
  double squared_error = 0, squared_norm = 0;
};

struct OutputTensor {
  std::string name;
  std::string type;            // the format's name of its elements
  std::string part_of;         // of several that stand for one: what they are together; empty: none
  std::vector<int64_t> shape;  // slowest first
  const TensorView* source = nullptr;  // null: not made from a tensor
  bool exact = true;
  int64_t rows = 0, row_bytes = 0;
  int64_t row_step = 1;  // fill is called for ranges that begin at a multiple of it
  // Rows [first, first + n) into out[n x row_bytes]. Adds to *error. Thread-safe.
  std::function<void(int64_t first, int64_t n, uint8_t* out, RowError* error)> fill;

  int64_t offset = 0;  // in the file; set by who lays the file out
  int64_t bytes() const { return rows * row_bytes; }
};

// One output tensor of the same elements as floats: kF32, kF16 or kBF16. What exceeds f16 becomes
// its largest number.
OutputTensor AsFloats(std::string name, Encoding type, const StoredRows& rows);
// The same elements as 32-column blocks (StoredRows::ReadBlocks), row after row.
OutputTensor AsBlocks(std::string name, const char* type, const StoredRows& rows);
// Bytes that are known: one row.
OutputTensor FromBytes(std::string name, const char* type, std::vector<int64_t> shape,
                       std::string bytes);

// Writes all tensors at their offsets and adds what became of them to *report. `progress` hears of
// the bytes of each. DataLoss where the checksum of a source differs.
absl::Status WriteTensors(const std::vector<OutputTensor>& tensors, NewFile& file, ThreadPool& pool,
                          absl::FunctionRef<void(int64_t bytes)> progress, ExportReport* report);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_OUTPUT_TENSOR_H_
