// What a calibrated quantization has done so far, in a file beside its output, so that the same
// command goes on where a killed one stopped.
#ifndef QUIRE_QUANTIZE_WORK_FILE_H_
#define QUIRE_QUANTIZE_WORK_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "format/unfinished.h"
#include "quantize/encode.h"
#include "runtime/model.h"

namespace quire {

// A shared mapping: its memory is the page cache's, none of the process's own. One process at a
// time. Not thread-safe, but what it points to may be written from many threads. A file that holds
// no finished layer is deleted with the object, and where the process is ended by a signal.
//
//   header: 64 bytes | a record for each layer | 16 KiB aligned: hidden states of two turns
//   [floats] each | the layers' encoded tensors [encoded_bytes]
class WorkFile {
 public:
  struct Shape {
    uint64_t fingerprint;  // of everything that the result depends on
    int64_t layers;
    int64_t state_floats;   // hidden states of all tokens
    int64_t encoded_bytes;  // of all layers
  };

  // Opens `path` where its shape and checksums say that it continues the same work, else begins
  // anew. ResourceExhausted where the disk has no room for all of it; FailedPrecondition where
  // another process has it, `path` is a file of anything else, or it holds finished layers of other
  // work and `discard_other` is false.
  static absl::StatusOr<std::unique_ptr<WorkFile>> Open(const std::string& path, const Shape& shape,
                                                        bool discard_other = false);
  ~WorkFile();
  WorkFile(const WorkFile&) = delete;
  WorkFile& operator=(const WorkFile&) = delete;

  int64_t layers_done() const { return layers_done_; }
  // The hidden states that go into layer layers_done(), and room for those that come out of it.
  float* states() { return StatesOf(layers_done_ % 2); }
  float* next_states() { return StatesOf(1 - layers_done_ % 2); }
  uint8_t* encoded() { return data_ + encoded_offset_; }

  // Layer layers_done() is done: `bytes` from `first` on of encoded(), `errors`, and next_states()
  // reach the disk, then the count. DataLoss where they do not.
  absl::Status FinishLayer(int64_t first, int64_t bytes, const EncodingError* errors);
  const EncodingError* errors(int64_t layer) const { return RecordOf(layer)->errors; }

  // Deletes the file: its work is whole.
  absl::Status Remove();

 private:
  struct Record {
    int64_t first, bytes;
    uint64_t encoded_xxh3, states_xxh3;
    EncodingError errors[kLayerMatrices.size()];
  };
  struct Header;

  WorkFile(std::string path, const Shape& shape);
  Header Beginning() const;
  absl::Status CheckOwn(bool discard_other) const;
  absl::Status Map(bool discard_other);
  bool SetSize(int64_t bytes) const;
  void SetWorthless(bool worthless);
  int64_t FindDone() const;
  float* StatesOf(int64_t turn) {
    return reinterpret_cast<float*>(data_ + states_offset_) + turn * shape_.state_floats;
  }
  Record* RecordOf(int64_t layer) const;
  absl::Status Sync(int64_t offset, int64_t bytes);

  const std::string path_;
  const Shape shape_;
  bool worthless_ = false;  // nothing is lost with the file
  Unfinished unfinished_;
  int64_t states_offset_, encoded_offset_, bytes_;
  int fd_ = -1;
  uint8_t* data_ = nullptr;
  int64_t layers_done_ = 0;
};

}  // namespace quire

#endif  // QUIRE_QUANTIZE_WORK_FILE_H_
