// Reading a deflated range of a file as if it were a plain one, in bounded memory.
#ifndef QUIRE_CONVERT_INFLATE_H_
#define QUIRE_CONVERT_INFLATE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
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

// Keeps a few half-read streams, so that a range read forwards in pieces (and a few of them by
// several threads) is inflated once; reading backwards starts again. Each takes about 100 KB.
// Thread-safe.
class InflaterCache {
 public:
  InflaterCache();
  ~InflaterCache();

  // Fills `out` from `offset` of the inflated bytes. InvalidArgument where the stream is malformed,
  // DataLoss where it ends early, ResourceExhausted where it goes on past `range.bytes`. `place`
  // begins the messages.
  absl::Status ReadAt(const File& file, const DeflatedRange& range, int64_t offset,
                      absl::Span<uint8_t> out, const std::string& place);

 private:
  class Inflater;
  static constexpr int kMaxIdle = 4;

  std::unique_ptr<Inflater> Take(int64_t range_offset, int64_t offset);

  std::mutex mutex_;
  std::vector<std::unique_ptr<Inflater>> idle_;  // oldest first
};

}  // namespace quire

#endif  // QUIRE_CONVERT_INFLATE_H_
