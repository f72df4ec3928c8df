// Packed 4-bit layers (compressed-tensors, GPTQ, AWQ): a layer made of the input's first bytes,
// right but for what up to three of them change, and what its configuration says.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "convert/fake_source.h"
#include "convert/quantized_source.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {
namespace {

constexpr DType kDTypes[] = {DType::kI32, DType::kF16, DType::kF32, DType::kBF16,
                             DType::kI64, DType::kU8,  DType::kF64};
constexpr int64_t kMaxTensorBytes = 1 << 20;

struct Part {
  const char* suffix;
  std::vector<int64_t> shape;
  DType dtype;
};

// packing, rows / 8, columns / 32, groups, flags, type of the scales, seed; three changes of part,
// what, by how much.
constexpr size_t kHeadBytes = 7 + 3 * 3;
enum Flags : uint8_t { kZeros = 1, kOrder = 2, kAnyOrder = 4, kHalfScales = 8, kOddColumns = 16 };

std::vector<Part> Parts(const uint8_t* head, int64_t rows, int64_t cols, int64_t groups) {
  const DType scale = kDTypes[1 + head[5] % 3];
  const bool zeros = (head[4] & kZeros) != 0;
  std::vector<Part> parts;
  switch (head[0] % 3) {
    case 0:
      parts = {{".weight_packed", {rows, (cols + 7) / 8}, DType::kI32},
               {".weight_scale", {rows, groups}, scale},
               {".weight_shape", {2}, (head[4] & kHalfScales) != 0 ? DType::kI32 : DType::kI64}};
      if (zeros) parts.push_back({".weight_zero_point", {(rows + 7) / 8, groups}, DType::kI32});
      if ((head[4] & kOrder) != 0) parts.push_back({".weight_g_idx", {cols}, DType::kI32});
      break;
    case 1:
      parts = {{".qweight", {cols / 8, rows}, DType::kI32},
               {".scales", {groups, rows}, scale},
               {".qzeros", {groups, (rows + 7) / 8}, DType::kI32}};
      if ((head[4] & kOrder) != 0) parts.push_back({".g_idx", {cols}, DType::kI32});
      break;
    default:
      parts = {{".qweight", {cols, rows / 8}, DType::kI32},
               {".scales", {groups, rows}, scale},
               {".qzeros", {groups, (rows + 7) / 8}, DType::kI32}};
  }
  return parts;
}

std::vector<uint8_t> Content(const Part& part, int64_t bytes, const uint8_t* head, int64_t rows,
                             int64_t cols, int64_t groups) {
  std::vector<uint8_t> out(static_cast<size_t>(bytes));
  const absl::string_view suffix = part.suffix;
  const auto put = [&](size_t i, int64_t value) {
    const size_t n = static_cast<size_t>(Info(part.dtype).block_bytes);
    if ((i + 1) * n <= out.size()) std::memcpy(&out[i * n], &value, std::min(n, sizeof value));
  };
  if (suffix == ".weight_shape") {
    put(0, rows);
    put(1, cols);
  } else if (suffix == ".g_idx" || suffix == ".weight_g_idx") {
    for (int64_t c = 0; c < cols; ++c)
      put(static_cast<size_t>(c),
          (head[4] & kAnyOrder) != 0 ? (c * head[6]) % (groups + head[6] / 64) : c * groups / cols);
  } else if (suffix == ".weight_scale" || suffix == ".scales") {
    // Numbers that f16 has, or any bits.
    for (size_t i = 0; i < out.size(); ++i) {
      const bool high = i % 2 == 1;
      out[i] = static_cast<uint8_t>((head[4] & kHalfScales) != 0 ? (high ? 0x20 + i % 16 : 0)
                                                                 : i * head[6] + head[5]);
    }
  } else {
    const bool eight = suffix == ".qzeros" && head[6] % 4 == 0;  // GPTQ's zero points of 8
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<uint8_t>(eight ? 0x77 : (i + 1) * (head[6] | 1));
  }
  return out;
}

FakeSource Layer(const uint8_t* head) {
  const int64_t rows = 8 * (1 + head[1] % 6), groups = 1 + head[3] % 5;
  const int64_t cols = ((head[4] & kOddColumns) != 0 ? 8 : 32) * (1 + head[2] % 4) * groups;
  FakeSource source("safetensors");
  std::vector<Part> parts = Parts(head, rows, cols, groups);
  for (size_t i = 0; i < parts.size(); ++i) {
    Part part = parts[i];
    const char* prefix = "a.up";
    int64_t number_of_rows = rows;
    bool gone = false;
    for (const uint8_t* change = head + 7; change < head + kHeadBytes; change += 3) {
      if (change[0] == 0 || (change[0] - 1) % parts.size() != i) continue;
      const auto by = static_cast<int8_t>(change[2]);
      switch (change[1] % 8) {
        case 0:
          gone = true;
          break;
        case 1:
          part.dtype = kDTypes[change[2] % std::size(kDTypes)];
          break;
        case 2:
          part.shape.push_back(by);
          break;
        case 3:
          if (!part.shape.empty()) part.shape.pop_back();
          break;
        case 4:
          prefix = "b.up";
          break;
        case 5:
          number_of_rows = int64_t{by} * (int64_t{1} << (change[2] & 55));
          break;
        default:
          if (!part.shape.empty()) part.shape[change[1] % part.shape.size()] += by;
      }
    }
    int64_t bytes = Info(part.dtype).block_bytes;
    for (int64_t& d : part.shape) {
      d = std::max<int64_t>(d, 0);
      bytes = std::min(bytes * d, kMaxTensorBytes + 1);
    }
    if (gone || bytes > kMaxTensorBytes) continue;
    source.Add(std::string(prefix) + part.suffix, part.shape, part.dtype,
               Content(part, bytes, head, number_of_rows, cols, groups));
  }
  source.Add("norm.weight", {4});
  return source;
}

// Reads the tensor whole and in ranges, which must say the same. Empty: refused.
std::vector<uint8_t> ReadAll(const TensorSource& source, int index) {
  const SourceTensor& tensor = source.tensors()[static_cast<size_t>(index)];
  const DTypeInfo& info = Info(tensor.dtype);
  const int64_t n = tensor.elements(), step = info.block_elements * (n % 7 + 3);
  std::vector<uint8_t> whole(static_cast<size_t>(tensor.bytes())), part;
  const bool read = source.Read(index, 0, n, absl::MakeSpan(whole)).ok();
  for (int64_t begin = 0; begin < n; begin += step) {
    const int64_t count = std::min(step, n - begin);
    part.resize(static_cast<size_t>(count / info.block_elements * info.block_bytes));
    const bool ok = source.Read(index, begin, count, absl::MakeSpan(part)).ok();
    FuzzCheck(ok || !read, "where the whole can be read, ranges can");
    const auto* at = whole.data() + begin / info.block_elements * info.block_bytes;
    FuzzCheck(!read || std::equal(part.begin(), part.end(), at), "ranges are those of the whole");
  }
  return read ? whole : std::vector<uint8_t>();
}

UnpackedSource Unpack(const uint8_t* head, const std::string& config, bool as_blocks) {
  auto unpacked = UnpackQuantized(std::make_unique<FakeSource>(Layer(head)), "/proc/self/fd",
                                  config, as_blocks);
  if (unpacked.ok()) return *std::move(unpacked);
  const absl::string_view message = unpacked.status().message();
  FuzzCheck(!message.empty() && message.size() < 2000, "a refusal says why, in a line");
  FuzzCheck(message.find('\n') == absl::string_view::npos, "a message is one line");
  return {};
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  if (size < kHeadBytes) return 0;
  const std::string config = FuzzFile(data + kHeadBytes, size - kHeadBytes);
  const UnpackedSource floats = Unpack(data, config, false);
  const UnpackedSource blocks = Unpack(data, config, true);
  FuzzCheck(floats.source != nullptr || blocks.source == nullptr, "what is blocks is numbers too");
  if (floats.source == nullptr || !floats.unpacked) return 0;
  for (size_t i = 0; i < floats.source->tensors().size(); ++i) {
    const SourceTensor& tensor = floats.source->tensors()[i];
    if (tensor.dtype != DType::kF32 || tensor.name == "norm.weight") continue;
    const std::vector<uint8_t> numbers = ReadAll(*floats.source, static_cast<int>(i));
    if (blocks.source == nullptr) continue;
    const DType dtype = blocks.source->tensors()[i].dtype;
    const std::vector<uint8_t> packed = ReadAll(*blocks.source, static_cast<int>(i));
    if (numbers.empty() || dtype != DType::kGgmlQ4_0) continue;
    FuzzCheck(!packed.empty(), "blocks of numbers that can be read can be read");
    std::vector<float> decoded(numbers.size() / sizeof(float));
    DecodeToFloat(dtype, packed, absl::MakeSpan(decoded));
    for (size_t k = 0; k < decoded.size(); ++k) {
      float number;
      std::memcpy(&number, &numbers[k * sizeof number], sizeof number);
      FuzzCheck(number == decoded[k], "blocks stand for the same numbers");
    }
  }
  return 0;
}
