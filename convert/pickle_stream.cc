#include "convert/pickle_stream.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace quire {

absl::StatusOr<Pickle> PickleStream::Next() {
  const std::string place = absl::StrCat(file_.path(), ": pickle at offset ", offset_);
  // Nothing says how long it is: what fails on a part of the file is tried again on more of it.
  std::string bytes;
  for (int64_t want = 1 << 10;; want *= 8) {
    const int64_t have = bytes.size();
    const int64_t size = std::min({want, kMaxPickleBytes, end_ - offset_});
    bytes.resize(size);
    const auto more = absl::MakeSpan(reinterpret_cast<uint8_t*>(&bytes[0]) + have, size - have);
    if (auto s = file_.ReadAt(offset_ + have, more); !s.ok()) return s;
    absl::StatusOr<Pickle> pickle = ParsePickle(bytes, place);
    if (pickle.ok()) {
      // Only a frame beyond STOP can have asked for more than all of the pickle. Any number of them
      // would each have that much read.
      if (pickle->consumed_bytes() <= have) {
        return absl::InvalidArgumentError(absl::StrCat(place,
                                                       ": a FRAME that goes on behind its STOP, ",
                                                       pickle->consumed_bytes(), " bytes on"));
      }
      offset_ += pickle->consumed_bytes();
      return pickle;
    }
    if (size == end_ - offset_) return pickle;
    if (size == kMaxPickleBytes) {
      if (!absl::IsDataLoss(pickle.status())) return pickle;
      return absl::ResourceExhaustedError(
          absl::StrCat(place, ": does not end within ", kMaxPickleBytes, " bytes, the limit"));
    }
  }
}

}  // namespace quire
