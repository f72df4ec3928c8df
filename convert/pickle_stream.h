// Pickles that stand one behind the other in a file, among other bytes.
#ifndef QUIRE_CONVERT_PICKLE_STREAM_H_
#define QUIRE_CONVERT_PICKLE_STREAM_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "convert/pickle_vm.h"
#include "format/file.h"

namespace quire {

class PickleStream {
 public:
  // Of bytes [begin, end) of the file, which must outlive it.
  PickleStream(const File& file, int64_t begin, int64_t end)
      : file_(file), offset_(begin), end_(end) {}

  // The pickle at offset(), which moves behind it. Errors of ParsePickle.
  absl::StatusOr<Pickle> Next();

  int64_t offset() const { return offset_; }
  void Skip(int64_t bytes) { offset_ += bytes; }

 private:
  const File& file_;
  int64_t offset_;
  const int64_t end_;
};

}  // namespace quire

#endif  // QUIRE_CONVERT_PICKLE_STREAM_H_
