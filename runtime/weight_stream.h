// Reads parts of a file over and over in one order, ahead of whoever uses them, past the page
// cache.
#ifndef QUIRE_RUNTIME_WEIGHT_STREAM_H_
#define QUIRE_RUNTIME_WEIGHT_STREAM_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "format/file.h"
#include "runtime/anonymous_memory.h"

namespace quire {

// What direct reads are aligned to, in the file and in memory.
inline constexpr int64_t kStreamAlign = 4096;

// A stretch of the file, aligned at both ends.
struct StreamPart {
  int64_t offset = 0, bytes = 0;
  int64_t slot_offset = 0;  // where it goes in its block's slot; kInPlace: nowhere, see below
  static constexpr int64_t kInPlace = -1;
};
// What is used together: parts that go to a slot are read in every round; parts that stay mapped
// (kInPlace) are brought into the page cache in the first round, where they are not there already.
using StreamBlock = std::vector<StreamPart>;

// A few threads read block after block, the first again after the last, into two slots: while one
// block is used, the next one is read. Reads are direct (O_DIRECT): they leave no trace in the page
// cache, so that what is to stay there does. Where the file system refuses that, they are ordinary
// ones whose pages are dropped again.
//
// Used by one thread. Destroying it ends the threads.
class WeightStream {
 public:
  // At least one part goes to a slot, of which all end within slot_bytes. `file` must outlive it.
  // ResourceExhausted where memory or a thread is refused.
  static absl::StatusOr<std::unique_ptr<WeightStream>> Start(const File& file,
                                                             const std::vector<StreamBlock>& blocks,
                                                             int64_t slot_bytes);
  ~WeightStream();

  // Waits for the next block, in order, and returns its slot (null where it has none); valid until
  // Release. DataLoss where the file could not be read: from then on always.
  absl::StatusOr<const uint8_t*> Acquire();
  // Precondition: Acquire has succeeded, once since the last Release.
  void Release();

  int64_t ring_bytes() const { return ring_.bytes(); }
  int64_t ring_resident_bytes() const { return ring_.ResidentBytes(); }
  // Whether the file system takes direct reads.
  bool direct() const;
  int64_t read_bytes() const;  // into slots, so far

 private:
  struct Piece {
    int64_t offset, bytes;
    int64_t slot_offset;  // or StreamPart::kInPlace
  };
  struct Block {
    std::vector<Piece> pieces;  // those that go to a slot come first
    int64_t slot_pieces = 0;
    int slot = 0;          // while it is read and used
    int64_t pending = 0;   // pieces not read yet
    int64_t finished = 0;  // rounds in which it has been read
  };

  WeightStream(const File& file, const std::vector<StreamBlock>& blocks);
  bool NextPiece(Block** block, Piece* piece);
  void Work();
  absl::Status Read(const Piece& piece, uint8_t* slot);
  absl::Status ReadIntoCache(const Piece& piece) const;

  const File& file_;
  AnonymousMemory ring_;
  int64_t slot_bytes_ = 0;
  int direct_fd_ = -1, cached_fd_ = -1;  // open files of its own, since advice is per open file

  mutable std::mutex mutex_;  // of all below
  std::condition_variable work_, ready_;
  bool stop_ = false;
  bool direct_ = true;
  absl::Status error_;
  std::vector<Block> blocks_;
  // Blocks are counted on through all rounds.
  int64_t reading_ = 0;    // the block that pieces are taken from
  bool opened_ = false;    // whether it has been given its slot
  size_t next_piece_ = 0;  // of it
  int64_t using_ = 0;      // the next block to be used, or in use
  int slots_busy_ = 0;
  int next_slot_ = 0;
  int64_t read_bytes_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_WEIGHT_STREAM_H_
