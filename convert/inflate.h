// Reading a deflated range of a file as if it were a plain one, in bounded memory.
#ifndef QUIRE_CONVERT_INFLATE_H_
#define QUIRE_CONVERT_INFLATE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/file.h"

namespace quire {

// Where a raw deflate stream lies, and how long it is said to be once inflated.
struct DeflatedRange {
  int64_t offset = 0;  // in the file; identifies the range
  int64_t stored_bytes = 0;
  int64_t bytes = 0;
};

// No deflate stream expands by more: a match of 258 bytes takes at least two bits.
inline constexpr int64_t kMaxDeflateRatio = 1032;

// Reading backwards inflates a range again from its beginning. All ranges together: each of those
// that are read 8 times, and this much more.
inline constexpr int64_t kMaxInflatePasses = 8;
inline constexpr int64_t kMaxInflatedAgainBytes = int64_t{256} << 20;

// Keeps a few half-read streams of about 100 KB each, and the last 16 MiB that were inflated: a
// range read forwards in pieces, also by several threads that are close to one another, is inflated
// once, and what is read back and forth near a place too. Thread-safe; one inflates at a time.
class InflaterCache {
 public:
  InflaterCache();
  ~InflaterCache();

  // Fills `out` from `offset` of the inflated bytes. InvalidArgument where the stream is malformed,
  // DataLoss where it ends early, ResourceExhausted where it goes on past `range.bytes` or over the
  // limit above. `place` begins the messages.
  absl::Status ReadAt(const File& file, const DeflatedRange& range, int64_t offset,
                      absl::Span<uint8_t> out, const std::string& place);

 private:
  class Inflater;
  struct Block {
    int64_t range_offset;
    int64_t begin;  // in the inflated bytes, a multiple of kBlockBytes
    std::vector<uint8_t> bytes;
  };
  static constexpr int kMaxIdle = 4;
  static constexpr int64_t kBlockBytes = 1 << 20;
  static constexpr size_t kMaxBlocks = 16;

  std::unique_ptr<Inflater> Take(int64_t range_offset, int64_t offset);
  // The block that holds the byte at `offset`; valid until the next call.
  absl::StatusOr<const Block*> Find(const File& file, const DeflatedRange& range, int64_t offset,
                                    const std::string& place);
  absl::Status Charge(const DeflatedRange& range, int64_t bytes, const std::string& place);

  std::mutex mutex_;
  std::vector<std::unique_ptr<Inflater>> idle_;  // oldest first
  std::deque<Block> blocks_;                     // oldest first
  absl::flat_hash_set<int64_t> ranges_;          // that were read, by offset
  int64_t allowed_bytes_ = kMaxInflatedAgainBytes;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_INFLATE_H_
