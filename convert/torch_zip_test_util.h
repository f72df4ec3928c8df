// What tests of torch's zip files share: a pickle and storages in, a refusal or a source out.
#ifndef QUIRE_CONVERT_TORCH_ZIP_TEST_UTIL_H_
#define QUIRE_CONVERT_TORCH_ZIP_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "convert/tensor_source.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"

namespace quire {

using Storages = std::vector<std::pair<std::string, std::string>>;

inline void Refused(const std::string& pickle, const Storages& storages, absl::StatusCode code,
                    const std::vector<std::string>& words) {
  ExpectRefused(TorchZipFile(pickle, storages), OpenTorchZip, code, words);
}

inline std::unique_ptr<TensorSource> OpenBytes(const std::string& bytes) {
  auto source = OpenTorchZip(WriteTestFile(bytes));
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *std::move(source) : nullptr;
}

inline std::vector<float> Floats(const TensorSource& source, int index) {
  std::vector<float> out(source.tensors()[index].elements());
  const auto bytes = absl::MakeSpan(reinterpret_cast<uint8_t*>(out.data()), 4 * out.size());
  const absl::Status s = source.Read(index, 0, out.size(), bytes);
  EXPECT_TRUE(s.ok()) << s;
  return out;
}

// {"w": a tensor of storage "0"}.
inline std::string ViewPickle(const std::string& type, int64_t elements, int64_t offset,
                              absl::Span<const int64_t> shape, absl::Span<const int64_t> strides) {
  return Pickler()
      .Proto(2)
      .Dict()
      .Str("w")
      .Tensor(type, "0", elements, offset, shape, strides)
      .SetItem()
      .Stop();
}

inline const Storages& TwelveFloats() {
  static const auto* const storages = new Storages{{"0", FloatsData(12)}};
  return *storages;
}

}  // namespace quire

#endif  // QUIRE_CONVERT_TORCH_ZIP_TEST_UTIL_H_
