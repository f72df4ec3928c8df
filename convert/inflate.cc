#include "convert/inflate.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

constexpr int64_t kInputBytes = 64 << 10;

}  // namespace

// One stream, read forwards.
class InflaterCache::Inflater {
 public:
  explicit Inflater(const DeflatedRange& range) : range_(range), input_(kInputBytes) {}
  ~Inflater() {
    if (started_) inflateEnd(&stream_);
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  int64_t range_offset() const { return range_.offset; }
  int64_t position() const { return position_; }

  // The next out.size() bytes; at the end of the range, that the stream ends there too.
  absl::Status Next(const File& file, absl::Span<uint8_t> out, const std::string& place) {
    if (!started_) {
      if (inflateInit2(&stream_, -MAX_WBITS) != Z_OK) {
        return absl::ResourceExhaustedError(absl::StrCat(place, ": no memory to inflate it"));
      }
      started_ = true;
    }
    int64_t done = 0;
    const int64_t size = out.size();
    while (done < size) {
      const int64_t n = std::min<int64_t>(size - done, 1 << 30);
      auto produced = Step(file, out.subspan(done, n), place);
      if (!produced.ok()) return produced.status();
      if (*produced == 0 && ended_) {
        return absl::DataLossError(
            absl::StrCat(place, ": inflates to ", position_, " bytes, not ", range_.bytes));
      }
      done += *produced;
    }
    while (position_ == range_.bytes && !ended_) {
      uint8_t extra;
      auto produced = Step(file, absl::MakeSpan(&extra, 1), place);
      if (!produced.ok()) return produced.status();
      if (*produced > 0) {
        return absl::ResourceExhaustedError(absl::StrCat(place, ": inflates to more than the ",
                                                         range_.bytes, " bytes it declares"));
      }
    }
    return absl::OkStatus();
  }

 private:
  // One call of inflate(): bytes produced, possibly 0.
  absl::StatusOr<int64_t> Step(const File& file, absl::Span<uint8_t> out,
                               const std::string& place) {
    if (ended_) return 0;
    if (stream_.avail_in == 0 && consumed_ < range_.stored_bytes) {
      const int64_t n = std::min<int64_t>(kInputBytes, range_.stored_bytes - consumed_);
      if (auto s = file.ReadAt(range_.offset + consumed_, absl::MakeSpan(input_.data(), n));
          !s.ok()) {
        return s;
      }
      consumed_ += n;
      stream_.next_in = input_.data();
      stream_.avail_in = static_cast<uInt>(n);
    }
    stream_.next_out = out.data();
    stream_.avail_out = static_cast<uInt>(out.size());
    const int code = inflate(&stream_, Z_NO_FLUSH);
    if (code == Z_STREAM_END) {
      ended_ = true;
      const int64_t unused = stream_.avail_in + (range_.stored_bytes - consumed_);
      if (unused != 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(place, ": ", unused, " bytes behind the end of its deflate stream"));
      }
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      return absl::InvalidArgumentError(absl::StrCat(
          place, ": malformed deflate data: ", stream_.msg != nullptr ? stream_.msg : "error"));
    }
    const int64_t produced = static_cast<int64_t>(out.size()) - stream_.avail_out;
    // Without input there may still be output: the rest of a match that did not fit before.
    if (produced == 0 && !ended_ && stream_.avail_in == 0 && consumed_ == range_.stored_bytes)
      return absl::DataLossError(absl::StrCat(place, ": the deflate stream is cut short"));
    position_ += produced;
    return produced;
  }

  const DeflatedRange range_;
  std::vector<uint8_t> input_;
  z_stream stream_ = {};
  bool started_ = false;
  bool ended_ = false;
  int64_t consumed_ = 0;  // of the stored bytes, handed to zlib
  int64_t position_ = 0;  // in the inflated bytes
};

InflaterCache::InflaterCache() = default;
InflaterCache::~InflaterCache() = default;

std::unique_ptr<InflaterCache::Inflater> InflaterCache::Take(int64_t range_offset, int64_t offset) {
  auto best = idle_.end();
  for (auto it = idle_.begin(); it != idle_.end(); ++it) {
    if ((*it)->range_offset() != range_offset || (*it)->position() > offset) continue;
    if (best == idle_.end() || (*it)->position() > (*best)->position()) best = it;
  }
  if (best == idle_.end()) return nullptr;
  std::unique_ptr<Inflater> inflater = std::move(*best);
  idle_.erase(best);
  return inflater;
}

absl::Status InflaterCache::Charge(const DeflatedRange& range, int64_t bytes,
                                   const std::string& place) {
  if (ranges_.insert(range.offset).second) allowed_bytes_ += kMaxInflatePasses * range.bytes;
  allowed_bytes_ -= bytes;
  if (allowed_bytes_ >= 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(place, ": read out of order, it is inflated more than ", kMaxInflatePasses,
                   " times, the limit; an archive without compression has no such limit"));
}

absl::StatusOr<const InflaterCache::Block*> InflaterCache::Find(const File& file,
                                                                const DeflatedRange& range,
                                                                int64_t offset,
                                                                const std::string& place) {
  const int64_t begin = offset - offset % kBlockBytes;
  for (const Block& block : blocks_) {
    if (block.range_offset == range.offset && block.begin == begin) return &block;
  }
  std::unique_ptr<Inflater> inflater = Take(range.offset, begin);
  if (inflater == nullptr) inflater = std::make_unique<Inflater>(range);
  // Blocks on the way are kept as well.
  while (inflater->position() <= begin) {
    const int64_t at = inflater->position();
    const int64_t n = std::min(kBlockBytes, range.bytes - at);
    if (auto s = Charge(range, n, place); !s.ok()) return s;
    Block block{range.offset, at, std::vector<uint8_t>(n)};
    if (auto s = inflater->Next(file, absl::MakeSpan(block.bytes), place); !s.ok()) return s;
    if (blocks_.size() == kMaxBlocks) blocks_.pop_front();
    blocks_.push_back(std::move(block));
    if (n == 0) break;
  }
  if (idle_.size() == kMaxIdle) idle_.erase(idle_.begin());
  idle_.push_back(std::move(inflater));
  return &blocks_.back();
}

absl::Status InflaterCache::ReadAt(const File& file, const DeflatedRange& range, int64_t offset,
                                   absl::Span<uint8_t> out, const std::string& place) {
  std::lock_guard<std::mutex> lock(mutex_);
  do {
    absl::StatusOr<const Block*> block = Find(file, range, offset, place);
    if (!block.ok()) return block.status();
    const int64_t skip = offset - (*block)->begin;
    const auto from = absl::MakeConstSpan((*block)->bytes).subspan(skip, out.size());
    std::copy(from.begin(), from.end(), out.begin());
    offset += from.size();
    out.remove_prefix(from.size());
  } while (!out.empty());
  return absl::OkStatus();
}

}  // namespace quire
