#include "convert/torch_source.h"

#include <tuple>

#include "absl/container/flat_hash_map.h"

namespace quire {

TorchSource::TorchSource(TorchListing listing) : listing_(std::move(listing)) {
  // Tied: the same elements of the same storage, in the same order.
  using Elements =
      std::tuple<int, int64_t, DType, absl::Span<const int64_t>, absl::Span<const int64_t>>;
  absl::flat_hash_map<Elements, int> first;
  aliases_.assign(listing_.tensors.size(), -1);
  int next = 0;
  for (size_t i = 0; i < aliases_.size(); ++i) {
    const auto& [storage, view] = listing_.views[i];
    if (listing_.tensors[i].elements() == 0) continue;
    const Elements key(storage, view.offset_bytes, listing_.tensors[i].dtype, view.shape,
                       view.strides);
    auto [it, added] = first.emplace(key, i);
    if (added) continue;
    if (aliases_[it->second] < 0) aliases_[it->second] = next++;
    aliases_[i] = aliases_[it->second];
  }
}

absl::Status TorchSource::Read(int index, int64_t begin, int64_t count,
                               absl::Span<uint8_t> out) const {
  const TorchView& v = listing_.views[index];
  return ReadStrided(
      v.view, begin, count,
      [&](int64_t offset, absl::Span<uint8_t> bytes) {
        return ReadStorage(v.storage, offset, bytes);
      },
      out);
}

std::vector<std::pair<std::string, int64_t>> TorchStream::files() const {
  return {{file_.path().substr(file_.path().rfind('/') + 1), file_.size()}};
}

}  // namespace quire
