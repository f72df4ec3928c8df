#include "runtime/weight_stream.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/packed_layout.h"

namespace quire {
namespace {

// Enough in flight for a disk to be busy all the time, and buffers in huge pages: a disk takes a
// read in as many parts as the memory behind it has, and small ones cost it as much as large ones.
constexpr int kReaders = 4;
constexpr int64_t kHugePage = 2 << 20, kPieceBytes = 2 * kHugePage;
// What is read into the page cache is copied out once, to here, and forgotten.
constexpr int64_t kDiscardBytes = 256 << 10;

// Another open file of the same inode, whatever the path names by now.
int Reopen(const File& file, int flags) {
  return open(absl::StrCat("/proc/self/fd/", file.fd()).c_str(), O_RDONLY | O_CLOEXEC | flags);
}

absl::Status CutShort(const File& file, int64_t at) {
  return absl::DataLossError(absl::StrCat(file.path(), ": the file ends at byte ", at, ", it was ",
                                          file.size(),
                                          " bytes long when it was opened: weights are missing"));
}

absl::Status Failed(const File& file, int64_t at, int error) {
  return absl::DataLossError(absl::StrCat(file.path(), ": reading weights at byte ", at, ": ",
                                          std::strerror(error),
                                          " (check the disk, and the file: quire verify)"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightStream>> WeightStream::Start(
    const File& file, const std::vector<StreamBlock>& blocks, int64_t slot_bytes) {
  std::unique_ptr<WeightStream> self(new WeightStream(file, blocks));
  int64_t ring_bytes = 2 * slot_bytes;
  if (ring_bytes > kHugePage) ring_bytes = RoundUp(ring_bytes, kHugePage);
  absl::StatusOr<AnonymousMemory> ring = AnonymousMemory::Map("buffers for weights", ring_bytes);
  if (!ring.ok()) return ring.status();
  madvise(ring->data(), ring->bytes(), MADV_HUGEPAGE);
  self->ring_ = *std::move(ring);
  self->slot_bytes_ = slot_bytes;
  self->direct_fd_ = Reopen(file, O_DIRECT);
  self->direct_ = self->direct_fd_ >= 0;
  self->cached_fd_ = Reopen(file, 0);
  // No readahead into what is not to stay.
  if (self->cached_fd_ >= 0) posix_fadvise(self->cached_fd_, 0, 0, POSIX_FADV_RANDOM);
  for (int i = 0; i < kReaders; ++i) {
    try {  // std::thread reports refusal only by exception
      self->threads_.emplace_back([stream = self.get()] { stream->Work(); });
    } catch (const std::system_error&) {
      if (i == 0) return absl::ResourceExhaustedError("the system refuses a thread for reading");
      break;
    }
  }
  return self;
}

WeightStream::WeightStream(const File& file, const std::vector<StreamBlock>& blocks)
    : file_(file), blocks_(blocks.size()) {
  for (size_t b = 0; b < blocks.size(); ++b) {
    Block& block = blocks_[b];
    for (const StreamPart& part : blocks[b]) {
      const bool in_place = part.slot_offset == StreamPart::kInPlace;
      for (int64_t at = 0; at < part.bytes; at += kPieceBytes) {
        block.pieces.push_back({part.offset + at, std::min(kPieceBytes, part.bytes - at),
                                in_place ? part.slot_offset : part.slot_offset + at});
      }
    }
    block.slot_pieces = std::stable_partition(
                            block.pieces.begin(), block.pieces.end(),
                            [](const Piece& p) { return p.slot_offset != StreamPart::kInPlace; }) -
                        block.pieces.begin();
  }
}

WeightStream::~WeightStream() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  if (direct_fd_ >= 0) close(direct_fd_);
  if (cached_fd_ >= 0) close(cached_fd_);
}

absl::StatusOr<const uint8_t*> WeightStream::Acquire() {
  const int64_t n = blocks_.size();
  std::unique_lock<std::mutex> lock(mutex_);
  const Block& block = blocks_[using_ % n];
  ready_.wait(lock, [&] { return !error_.ok() || block.finished > using_ / n; });
  if (!error_.ok()) return error_;
  return block.slot_pieces == 0 ? nullptr : ring_.data() + block.slot * slot_bytes_;
}

void WeightStream::Release() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (blocks_[using_ % blocks_.size()].slot_pieces > 0) --slots_busy_;
    ++using_;
  }
  work_.notify_all();
}

bool WeightStream::direct() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return direct_;
}

int64_t WeightStream::read_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return read_bytes_;
}

// Takes the next piece to be read, of the block that *block points to then; false where there is no
// room for it. Called with the mutex held.
bool WeightStream::NextPiece(Block** block, Piece* piece) {
  const int64_t n = blocks_.size();
  while (reading_ < using_ + n) {  // a block is not read again before it was used
    Block& current = blocks_[reading_ % n];
    const size_t count = reading_ < n ? current.pieces.size() : current.slot_pieces;
    if (!opened_) {
      if (current.slot_pieces > 0) {
        if (slots_busy_ == 2) return false;
        ++slots_busy_;
        current.slot = next_slot_;
        next_slot_ ^= 1;
      }
      current.pending = count;
      if (count == 0) {
        ++current.finished;
        ready_.notify_one();
      }
      opened_ = true;
      next_piece_ = 0;
    }
    if (next_piece_ < count) {
      *block = &current;
      *piece = current.pieces[next_piece_++];
      return true;
    }
    opened_ = false;
    ++reading_;
  }
  return false;
}

void WeightStream::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    Block* block = nullptr;
    Piece piece;
    work_.wait(lock, [&] { return stop_ || !error_.ok() || NextPiece(&block, &piece); });
    if (stop_ || !error_.ok()) return;
    uint8_t* slot = ring_.data() + block->slot * slot_bytes_;
    lock.unlock();
    absl::Status status =
        piece.slot_offset == StreamPart::kInPlace ? ReadIntoCache(piece) : Read(piece, slot);
    lock.lock();
    if (!status.ok()) {
      error_.Update(status);
      ready_.notify_one();
      work_.notify_all();
      return;
    }
    if (piece.slot_offset != StreamPart::kInPlace) read_bytes_ += piece.bytes;
    if (--block->pending == 0) {
      ++block->finished;
      ready_.notify_one();
    }
  }
}

absl::Status WeightStream::Read(const Piece& piece, uint8_t* slot) {
  for (int64_t done = 0; done < piece.bytes;) {
    const bool direct = this->direct();
    const int fd = direct ? direct_fd_ : cached_fd_ >= 0 ? cached_fd_ : file_.fd();
    const int64_t at = piece.offset + done;
    const ssize_t n = pread(fd, slot + piece.slot_offset + done, piece.bytes - done, at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && direct) {
      std::lock_guard<std::mutex> lock(mutex_);
      direct_ = false;
      continue;
    }
    if (n < 0) return Failed(file_, at, errno);
    // A direct read that stops within a page has met the end of the file.
    if (n == 0 || (direct && n % kStreamAlign != 0)) return CutShort(file_, at + n);
    if (!direct) posix_fadvise(fd, at, n, POSIX_FADV_DONTNEED);
    done += n;
  }
  return absl::OkStatus();
}

absl::Status WeightStream::ReadIntoCache(const Piece& piece) const {
  const int fd = cached_fd_ >= 0 ? cached_fd_ : file_.fd();
  std::array<uint8_t, kDiscardBytes> discard;
  for (int64_t done = 0; done < piece.bytes;) {
    const int64_t at = piece.offset + done;
    const ssize_t n =
        pread(fd, discard.data(), std::min<int64_t>(discard.size(), piece.bytes - done), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed(file_, at, errno);
    if (n == 0) return CutShort(file_, at);
    done += n;
  }
  return absl::OkStatus();
}

}  // namespace quire
