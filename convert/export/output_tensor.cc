#include "convert/export/output_tensor.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "format/half.h"

namespace quire {
namespace {

// Rows of a chunk: a thread's buffers are a few times this.
constexpr int64_t kChunkBytes = 1 << 20;

template <typename T>
void Store(T value, uint8_t* out) {
  std::memcpy(out, &value, sizeof value);
}

// Writes one float; returns what a reader of it sees.
float StoreFloat(Encoding type, float value, uint8_t* out) {
  constexpr float kLargestHalf = 65504;
  switch (type) {
    case Encoding::kF16: {
      const uint16_t half = FloatToHalf(std::clamp(value, -kLargestHalf, kLargestHalf));
      Store(half, out);
      return HalfToFloat(half);
    }
    case Encoding::kBF16: {
      const uint16_t half = FloatToBfloat16(value);
      Store(half, out);
      return Bfloat16ToFloat(half);
    }
    default:
      Store(value, out);
      return value;
  }
}

// Floats are exact in their own type, and all in f32.
bool IsExact(Encoding from, Encoding to) { return to == Encoding::kF32 || from == to; }

absl::Status CheckSum(const TensorView& tensor) {
  if (XXH3_64bits(tensor.data, tensor.bytes) == tensor.xxh3) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("tensor \"", tensor.name, "\": the checksum of its ",
                                          tensor.bytes, " bytes at offset ", tensor.offset,
                                          " differs: the file is damaged"));
}

}  // namespace

absl::StatusOr<std::vector<ModelTensor>> ListModelTensors(const ModelFile& model) {
  const pb::ModelConfig& config = model.config();
  std::vector<ModelTensor> tensors;
  const auto take = [&](const TensorNames& row, int layer) {
    const std::string name = OfLayer(row.canonical, layer);
    const TensorView* view = model.Find(name);
    if (view == nullptr) {
      const bool bias = absl::StartsWith(row.canonical, "layers.*.b");
      if (bias || (name == "output" && config.tied_embeddings())) return absl::OkStatus();
      return absl::InvalidArgumentError(
          absl::StrCat(model.path(), ": tensor \"", name, "\" is missing"));
    }
    std::vector<int64_t> shape = {DimSize(config, row.rows)};
    if (row.cols != Dim::kNone) shape.push_back(DimSize(config, row.cols));
    if (view->shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          model.path(), ": tensor \"", name, "\" is [", absl::StrJoin(view->shape, ", "),
          "], its configuration asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    tensors.push_back({view, &row, layer});
    return absl::OkStatus();
  };
  const auto per_layer = [](const TensorNames& row) {
    return absl::StartsWith(row.canonical, "layers.");
  };
  const absl::Span<const TensorNames> table = TensorNameTable();
  size_t next = 0;
  for (; next < table.size() && !per_layer(table[next]); ++next) {
    if (absl::Status status = take(table[next], -1); !status.ok()) return status;
  }
  const size_t first = next;
  for (int layer = 0; layer < static_cast<int>(config.n_layers()); ++layer) {
    for (next = first; per_layer(table[next]); ++next) {
      if (absl::Status status = take(table[next], layer); !status.ok()) return status;
    }
  }
  for (; next < table.size(); ++next) {
    if (absl::Status status = take(table[next], -1); !status.ok()) return status;
  }
  if (tensors.size() != model.tensors().size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        model.path(), ": ", model.tensors().size(), " tensors, where a ", config.architecture(),
        " model of ", config.n_layers(), " layers has ", tensors.size()));
  }
  return tensors;
}

OutputTensor AsFloats(std::string name, Encoding type, const StoredRows& rows) {
  OutputTensor out;
  out.name = std::move(name);
  out.type = Info(type).name;
  out.shape = rows.tensor().shape;
  out.source = &rows.tensor();
  out.exact = IsExact(rows.tensor().geometry.encoding, type);
  out.rows = rows.rows();
  out.row_bytes = rows.cols() * Info(type).code_bits / 8;
  out.row_step = rows.row_step();
  out.fill = [rows, type](int64_t first, int64_t n, uint8_t* bytes, RowError* error) {
    std::vector<float> values(static_cast<size_t>(n * rows.cols()));
    rows.ReadFloats(first, n, values.data());
    for (const float value : values) {
      const double wrong = double{StoreFloat(type, value, bytes)} - value;
      error->squared_error += wrong * wrong;
      error->squared_norm += double{value} * value;
      bytes += Info(type).code_bits / 8;
    }
  };
  return out;
}

OutputTensor AsBlocks(std::string name, const char* type, const StoredRows& rows) {
  OutputTensor out;
  out.name = std::move(name);
  out.type = type;
  out.shape = rows.tensor().shape;
  out.source = &rows.tensor();
  out.rows = rows.rows();
  out.row_bytes = rows.cols() / kGroupColumns * rows.block_bytes();
  out.row_step = rows.row_step();
  out.fill = [rows](int64_t first, int64_t n, uint8_t* bytes, RowError*) {
    rows.ReadBlocks(first, n, bytes);
  };
  return out;
}

OutputTensor FromBytes(std::string name, const char* type, std::vector<int64_t> shape,
                       std::string bytes) {
  OutputTensor out;
  out.name = std::move(name);
  out.type = type;
  out.shape = std::move(shape);
  out.rows = 1;
  out.row_bytes = static_cast<int64_t>(bytes.size());
  out.fill = [bytes = std::move(bytes)](int64_t, int64_t, uint8_t* to, RowError*) {
    std::memcpy(to, bytes.data(), bytes.size());
  };
  return out;
}

absl::Status WriteTensors(const std::vector<OutputTensor>& tensors, NewFile& file, ThreadPool& pool,
                          absl::FunctionRef<void(int64_t bytes)> progress, ExportReport* report) {
  const TensorView* checked = nullptr;
  for (const OutputTensor& tensor : tensors) {
    if (tensor.source != nullptr && tensor.source != checked) {
      if (absl::Status status = CheckSum(*tensor.source); !status.ok()) return status;
      checked = tensor.source;
    }
    // What is read for a row may be more than what is written.
    const int64_t cols = tensor.source == nullptr ? 0 : tensor.source->geometry.cols;
    const int64_t row_bytes = std::max(tensor.row_bytes, 2 * cols);
    const int64_t steps = std::max<int64_t>(1, kChunkBytes / (tensor.row_step * row_bytes));
    const int64_t chunk = steps * tensor.row_step;
    const int64_t chunks = (tensor.rows + chunk - 1) / chunk;
    std::vector<RowError> sums(static_cast<size_t>(chunks));  // added in order: the same sum always
    std::mutex mutex;
    absl::Status status;
    pool.ParallelFor(chunks, [&](int64_t i, int) {
      const int64_t first = i * chunk, n = std::min(chunk, tensor.rows - first);
      std::vector<uint8_t> bytes(static_cast<size_t>(n * tensor.row_bytes));
      tensor.fill(first, n, bytes.data(), &sums[static_cast<size_t>(i)]);
      const absl::Status written = file.WriteAt(tensor.offset + first * tensor.row_bytes,
                                                bytes.data(), static_cast<int64_t>(bytes.size()));
      if (written.ok()) return;
      std::lock_guard<std::mutex> lock(mutex);
      status.Update(written);
    });
    if (!status.ok()) return status;
    RowError sum;
    for (const RowError& part : sums) {
      sum.squared_error += part.squared_error;
      sum.squared_norm += part.squared_norm;
    }
    const double error =
        sum.squared_norm > 0 ? std::sqrt(sum.squared_error / sum.squared_norm) : 0.0;
    const char* from = tensor.source == nullptr ? "" : Info(tensor.source->geometry.encoding).name;
    report->tensors.push_back({tensor.name, tensor.part_of.empty() ? tensor.type : tensor.part_of,
                               from, tensor.bytes(), tensor.exact || error == 0, error});
    progress(tensor.bytes());
  }
  return absl::OkStatus();
}

}  // namespace quire
