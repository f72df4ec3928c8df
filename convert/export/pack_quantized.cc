#include "convert/export/pack_quantized.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

constexpr int kWordColumns = 8, kScaleBytes = 2;

// 16 bytes of a Q4_0 block: byte j has column j below and column 16 + j above. Out: 4 words.
void WordsOfBlock(const uint8_t* codes, uint8_t* out) {
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < kGroupColumns / 2; j += 2) {
      const int low = codes[j] >> 4 * half & 15, high = codes[j + 1] >> 4 * half & 15;
      *out++ = static_cast<uint8_t>(low | high << 4);
    }
  }
}

// A part of every block of every row.
template <typename Copy>
OutputTensor OfBlocks(std::string name, const char* type, int64_t row_elements, int64_t row_bytes,
                      const StoredRows& rows, Copy copy) {
  OutputTensor out = AsBlocks(std::move(name), type, rows);
  out.shape = {rows.rows(), row_elements};
  out.row_bytes = row_bytes;
  out.part_of = "pack-quantized";
  out.fill = [rows, copy](int64_t first, int64_t n, uint8_t* bytes, RowError*) {
    const int64_t blocks = n * rows.cols() / kGroupColumns;
    std::vector<uint8_t> from(static_cast<size_t>(blocks * rows.block_bytes()));
    rows.ReadBlocks(first, n, from.data());
    for (int64_t i = 0; i < blocks; ++i) copy(from.data() + i * rows.block_bytes(), i, bytes);
  };
  return out;
}

}  // namespace

std::vector<OutputTensor> AsPackQuantized(const std::string& layer, const StoredRows& rows) {
  const int64_t groups = rows.cols() / kGroupColumns;
  std::vector<OutputTensor> tensors;
  tensors.push_back(OfBlocks(absl::StrCat(layer, ".weight_packed"), "I32",
                             rows.cols() / kWordColumns, rows.cols() / 2, rows,
                             [](const uint8_t* block, int64_t i, uint8_t* out) {
                               WordsOfBlock(block + kScaleBytes, out + i * kGroupColumns / 2);
                             }));
  tensors.push_back(OfBlocks(absl::StrCat(layer, ".weight_scale"), "F16", groups,
                             groups * kScaleBytes, rows,
                             [](const uint8_t* block, int64_t i, uint8_t* out) {
                               std::memcpy(out + i * kScaleBytes, block, kScaleBytes);
                             }));
  const int64_t shape[2] = {rows.rows(), rows.cols()};
  tensors.push_back(FromBytes(absl::StrCat(layer, ".weight_shape"), "I64", {2},
                              std::string(reinterpret_cast<const char*>(shape), sizeof shape)));
  return tensors;
}

std::string PackQuantizedConfig(const std::vector<std::string>& ignored) {
  using Json = nlohmann::ordered_json;
  const Json weights = {{"num_bits", 4},
                        {"type", "int"},
                        {"symmetric", true},
                        {"strategy", "group"},
                        {"group_size", kGroupColumns},
                        {"dynamic", false},
                        {"actorder", nullptr},
                        {"block_structure", nullptr},
                        {"observer", "minmax"},
                        {"observer_kwargs", Json::object()}};
  const Json group = {{"targets", Json::array({"Linear"})},
                      {"weights", weights},
                      {"input_activations", nullptr},
                      {"output_activations", nullptr}};
  const Json config = {{"quant_method", "compressed-tensors"},
                       {"format", "pack-quantized"},
                       {"quantization_status", "compressed"},
                       {"config_groups", {{"group_0", group}}},
                       {"ignore", ignored},
                       {"kv_cache_scheme", nullptr},
                       {"global_compression_ratio", nullptr}};
  return config.dump();
}

}  // namespace quire
