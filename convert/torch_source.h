// What torch's containers have in common: tensors that are strided views of storages.
#ifndef QUIRE_CONVERT_TORCH_SOURCE_H_
#define QUIRE_CONVERT_TORCH_SOURCE_H_

#include <string>
#include <utility>
#include <vector>

#include "convert/tensor_source.h"
#include "convert/torch_listing.h"
#include "format/file.h"

namespace quire {

class TorchSource : public TensorSource {
 public:
  absl::Span<const SourceTensor> tensors() const override { return listing_.tensors; }
  // A contiguous tensor costs one read of its storage, straight into `out`.
  absl::Status Read(int index, int64_t begin, int64_t count,
                    absl::Span<uint8_t> out) const override;
  int Alias(int index) const override { return aliases_[index]; }
  absl::Span<const std::pair<std::string, std::string>> metadata() const override {
    return listing_.metadata;
  }

 protected:
  explicit TorchSource(TorchListing listing);

  const TorchListing& listing() const { return listing_; }

  // Fills `out` with bytes of listing().storages[storage] from `offset` on.
  virtual absl::Status ReadStorage(int storage, int64_t offset, absl::Span<uint8_t> out) const = 0;

 private:
  TorchListing listing_;
  std::vector<int> aliases_;  // one for each tensor
};

// Storages that lie plainly in one file.
class TorchStream : public TorchSource {
 public:
  // offsets: of each storage's bytes.
  TorchStream(const char* container, File file, TorchListing listing, std::vector<int64_t> offsets)
      : TorchSource(std::move(listing)),
        container_(container),
        file_(std::move(file)),
        offsets_(std::move(offsets)) {}

  absl::string_view container() const override { return container_; }
  std::vector<std::pair<std::string, int64_t>> files() const override;

 protected:
  absl::Status ReadStorage(int storage, int64_t offset, absl::Span<uint8_t> out) const override {
    return file_.ReadAt(offsets_[storage] + offset, out);
  }

 private:
  const char* container_;
  File file_;
  std::vector<int64_t> offsets_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_TORCH_SOURCE_H_
