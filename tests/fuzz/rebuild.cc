// Rebuilt tensors: the input is numbers, from which calls of torch's rebuild functions are made
// that a pickle may contain. Whether each is accepted is computed here in another way.
#include <algorithm>
#include <string>
#include <vector>

#include "convert/pickle_vm.h"
#include "convert/strided_read.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/torch_listing.h"
#include "tests/fuzz/fuzz_file.h"

namespace quire {
namespace {

class Numbers {
 public:
  Numbers(const uint8_t* data, size_t size) : data_(data), end_(data + size) {}
  bool done() const { return data_ == end_; }
  uint8_t Byte() { return done() ? 0 : *data_++; }
  // Small mostly; sometimes at the ends of what 64 bits hold.
  int64_t Next() {
    const uint8_t kind = Byte();
    if (kind < 0xd0) return kind % 16;
    if (kind < 0xe0) return -static_cast<int64_t>(Byte());
    if (kind < 0xf0) return (int64_t{1} << (Byte() % 63)) + Byte() - 128;
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | Byte();
    return static_cast<int64_t>(value);
  }

 private:
  const uint8_t *data_, *end_;
};

struct Wanted {
  int64_t elements = 0, offset = 0;
  std::vector<int64_t> shape, strides;
};

constexpr struct {
  const char* name;
  int bytes;
} kTypes[] = {{"FloatStorage", 4}, {"BFloat16Storage", 2}, {"ByteStorage", 1}, {"LongStorage", 8}};

// As the definition of a strided view says, in 128 bits, where nothing wraps.
bool Inside(const Wanted& t, int bytes) {
  if (t.elements < 0 || t.offset < 0 || t.shape.size() != t.strides.size()) return false;
  for (size_t d = 0; d < t.shape.size(); ++d) {
    if (t.shape[d] < 0 || t.strides[d] < 0) return false;
  }
  if (std::count(t.shape.begin(), t.shape.end(), 0) > 0) return true;  // no element
  __int128 last = t.offset;
  for (size_t d = 0; d < t.shape.size(); ++d) {
    last += static_cast<__int128>(t.shape[d] - 1) * t.strides[d];
    // No sum of 16 such products wraps.
    if (last > (static_cast<__int128>(1) << 120)) return false;
  }
  return (last + 1) * bytes <= static_cast<__int128>(t.elements) * bytes;
}

void CheckReads(const TorchListing& listing) {
  for (size_t i = 0; i < listing.tensors.size(); ++i) {
    const TorchView& v = listing.views[i];
    const int64_t bytes = listing.storages[static_cast<size_t>(v.storage)].bytes;
    const int64_t elements = listing.tensors[i].elements();
    FuzzCheck(elements >= 0 && listing.tensors[i].bytes() - bytes <= kMaxRepeatedBytes,
              "sizes do not wrap");
    const int64_t count = std::min<int64_t>(elements, 500);
    std::vector<uint8_t> out(static_cast<size_t>(count * v.view.element_bytes));
    const auto read = [&](int64_t offset, absl::Span<uint8_t> to) {
      FuzzCheck(offset >= 0 && offset + static_cast<int64_t>(to.size()) <= bytes,
                "reads are inside of the storage");
      for (size_t k = 0; k < to.size(); ++k) to[k] = static_cast<uint8_t>((offset + k) % 251);
      return absl::OkStatus();
    };
    FuzzCheck(ReadStrided(v.view, elements - count, count, read, absl::MakeSpan(out)).ok(),
              "a view is read");
    // Each element by its coordinates.
    for (int64_t e = 0; e < count; ++e) {
      int64_t rest = elements - count + e, at = v.view.offset_bytes;
      for (size_t d = v.view.shape.size(); d-- > 0;) {
        at += rest % v.view.shape[d] * v.view.strides[d] * v.view.element_bytes;
        rest /= v.view.shape[d];
      }
      for (int b = 0; b < v.view.element_bytes; ++b) {
        FuzzCheck(out[static_cast<size_t>(e * v.view.element_bytes + b)] == (at + b) % 251,
                  "an element is the one at its place");
      }
    }
  }
}

}  // namespace
}  // namespace quire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  Numbers numbers(data, size);
  Pickler pickle;
  pickle.Proto(2).Dict().Mark();
  bool inside = true, huge = false;
  const int tensors = 1 + numbers.Byte() % 3;
  for (int i = 0; i < tensors; ++i) {
    const auto& type = kTypes[numbers.Byte() % 4];
    Wanted t;
    t.elements = numbers.Next();
    t.offset = numbers.Next();
    const int rank = numbers.Byte() % 6;
    for (int d = 0; d < rank; ++d) t.shape.push_back(numbers.Next());
    for (int d = numbers.Byte() == 0xff ? 1 : 0; d < rank; ++d) t.strides.push_back(numbers.Next());
    inside &= Inside(t, type.bytes);
    __int128 bytes = type.bytes;
    for (const int64_t d : t.shape)
      bytes = std::min<__int128>(bytes * std::max<int64_t>(d, 1), static_cast<__int128>(1) << 64);
    huge |= bytes > kMaxRepeatedBytes || t.elements >= (int64_t{1} << 59) ||
            t.offset >= (int64_t{1} << 59);
    pickle.Str(std::string(1, static_cast<char>('a' + i)));
    pickle.Tensor(type.name, std::string(1, static_cast<char>('0' + i)), t.elements, t.offset,
                  t.shape, t.strides);
  }
  const auto parsed = ParsePickle(pickle.Raw("u").Stop(), "x");
  FuzzCheck(parsed.ok(), "what is built is a pickle");
  const auto listing = ListTorchTensors(*parsed, "x");
  if (!listing.ok()) {
    FuzzCheck(!listing.status().message().empty(), "a refusal says why");
    FuzzCheck(!inside || huge, "what lies inside of its storage is accepted");
    return 0;
  }
  FuzzCheck(inside, "what is accepted lies inside of its storage");
  CheckReads(*listing);
  return 0;
}
