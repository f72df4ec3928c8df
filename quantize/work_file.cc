#include "quantize/work_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/file.h"
#include "format/packed_layout.h"

namespace quire {
namespace {

constexpr char kWorkMagic[8] = {'q', 'u', 'i', 'r', 'e', 'w', 'r', 'k'};
constexpr uint32_t kWorkVersion = 1;
constexpr int64_t kAlignment = 16384;
constexpr int64_t kMaxLayers = 65536;  // far more than any model has

template <typename Header, typename Record>
uint64_t HeaderSum(const Header& header, const Record* records) {
  const uint64_t seed = XXH3_64bits(&header, offsetof(Header, xxh3));
  return XXH3_64bits_withSeed(records, header.layers_done * sizeof(Record), seed);
}

// What there is of `n` bytes at `at`; below 0: an error.
ssize_t ReadAt(int fd, int64_t at, void* out, size_t n) {
  size_t done = 0;
  while (done < n) {
    const ssize_t some = TEMP_FAILURE_RETRY(
        pread(fd, static_cast<char*>(out) + done, n - done, at + static_cast<int64_t>(done)));
    if (some < 0) return some;
    if (some == 0) break;
    done += some;
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

struct WorkFile::Header {
  char magic[8];
  uint32_t version, layers;
  uint64_t fingerprint;
  int64_t state_floats, encoded_bytes;
  int64_t layers_done;
  uint64_t xxh3;  // of the header before this field, and of the records of the layers done
};

WorkFile::WorkFile(std::string path, const Shape& shape) : path_(std::move(path)), shape_(shape) {
  static_assert(sizeof(Header) <= 64, "the header has 64 bytes");
  const int64_t records = shape.layers * static_cast<int64_t>(sizeof(Record));
  states_offset_ = RoundUp(64 + records, kAlignment);
  encoded_offset_ =
      states_offset_ +
      RoundUp(2 * shape.state_floats * static_cast<int64_t>(sizeof(float)), kAlignment);
  bytes_ = encoded_offset_ + RoundUp(shape.encoded_bytes, kAlignment);
}

WorkFile::~WorkFile() {
  if (worthless_) unlink(path_.c_str());
  if (data_ != nullptr) munmap(data_, bytes_);
  if (fd_ >= 0) close(fd_);
}

WorkFile::Record* WorkFile::RecordOf(int64_t layer) const {
  return reinterpret_cast<Record*>(data_ + 64) + layer;
}

absl::StatusOr<std::unique_ptr<WorkFile>> WorkFile::Open(const std::string& path,
                                                         const Shape& shape, bool discard_other) {
  std::unique_ptr<WorkFile> self(new WorkFile(path, shape));
  if (absl::Status status = self->Map(discard_other); !status.ok()) return status;
  self->layers_done_ = self->FindDone();
  self->SetWorthless(self->layers_done_ == 0);
  return self;
}

bool WorkFile::SetSize(int64_t bytes) const {
  return TEMP_FAILURE_RETRY(ftruncate(fd_, bytes)) == 0;
}

void WorkFile::SetWorthless(bool worthless) {
  worthless_ = worthless;
  worthless ? unfinished_.Set(path_) : unfinished_.Clear();
}

// The header of this work with no layer done.
WorkFile::Header WorkFile::Beginning() const {
  Header header{};
  std::memcpy(header.magic, kWorkMagic, sizeof kWorkMagic);
  header.version = kWorkVersion;
  header.layers = static_cast<uint32_t>(shape_.layers);
  header.fingerprint = shape_.fingerprint;
  header.state_floats = shape_.state_floats;
  header.encoded_bytes = shape_.encoded_bytes;
  return header;
}

// Only what a run like this one left behind may be written over.
absl::Status WorkFile::CheckOwn(bool discard_other) const {
  Header found{};
  const ssize_t bytes = ReadAt(fd_, 0, &found, sizeof found);
  if (bytes < 0) return ErrnoStatus(errno, absl::StrCat(path_, ": reading unfinished work"));
  const Header nothing{};  // what there is before the header is written
  if (std::memcmp(&found, &nothing, sizeof found) == 0) return absl::OkStatus();
  if (bytes < static_cast<ssize_t>(sizeof kWorkMagic) ||
      std::memcmp(found.magic, kWorkMagic, sizeof kWorkMagic) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        path_, ": is in the place of unfinished work, and is none; move it away or delete it"));
  }
  const Header wanted = Beginning();
  const bool same = std::memcmp(&found, &wanted, offsetof(Header, layers_done)) == 0;
  if (same || discard_other || found.layers_done <= 0 || found.layers_done > kMaxLayers) {
    return absl::OkStatus();
  }
  std::vector<Record> records(found.layers_done);
  const ssize_t wanted_bytes = static_cast<ssize_t>(records.size() * sizeof(Record));
  const ssize_t found_bytes = ReadAt(fd_, 64, records.data(), wanted_bytes);
  if (found_bytes < 0) return ErrnoStatus(errno, absl::StrCat(path_, ": reading unfinished work"));
  if (found_bytes != wanted_bytes || found.xxh3 != HeaderSum(found, records.data())) {
    return absl::OkStatus();  // damaged: nothing of it could be used
  }
  return absl::FailedPreconditionError(
      absl::StrCat(path_, ": holds ", found.layers_done, " of ", found.layers,
                   " layers, finished for another model, text or type; finish that, or discard it "
                   "with --force"));
}

absl::Status WorkFile::Map(bool discard_other) {
  const auto error = [&](const char* what) {
    return ErrnoStatus(errno, absl::StrCat(path_, ": ", what));
  };
  unfinished_.Hold();
  fd_ = TEMP_FAILURE_RETRY(open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_CREAT, 0666));
  if (fd_ < 0) return error("opening the file of unfinished work");
  if (!LockForThisProcess(fd_)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": another quantization to the same output is at work"));
  }
  struct stat now;
  if (fstat(fd_, &now) != 0) return error("looking at the file of unfinished work");
  if (!S_ISREG(now.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": is no file; unfinished work goes there"));
  }
  SetWorthless(now.st_size == 0);
  if (absl::Status own = CheckOwn(discard_other); !own.ok()) return own;
  if (now.st_size != bytes_) {
    SetWorthless(true);
    if (!SetSize(0) || !SetSize(bytes_)) return error("making room for unfinished work");
  }
  // Blocks now, so that no write to the mapping fails later.
  int refused;
  do {
    refused = posix_fallocate(fd_, 0, bytes_);
  } while (refused == EINTR);
  if (refused != 0) {
    return ErrnoStatus(refused,
                       absl::StrCat(path_, ": room for ", bytes_, " bytes of unfinished work"));
  }
  void* data = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) return error("mapping it");
  data_ = static_cast<uint8_t*>(data);
  return absl::OkStatus();
}

// How many layers the file holds, of this work and undamaged; 0 also prepares the header.
int64_t WorkFile::FindDone() const {
  Header& header = *reinterpret_cast<Header*>(data_);
  const Header wanted = Beginning();
  const bool same = std::memcmp(&header, &wanted, offsetof(Header, layers_done)) == 0 &&
                    header.layers_done > 0 && header.layers_done <= shape_.layers &&
                    header.xxh3 == HeaderSum(header, RecordOf(0));
  int64_t done = same ? header.layers_done : 0;
  for (int64_t l = 0; l < done; ++l) {
    const Record& record = *RecordOf(l);
    const bool inside = record.first >= 0 && record.bytes >= 0 &&
                        record.first <= shape_.encoded_bytes &&
                        record.bytes <= shape_.encoded_bytes - record.first;
    if (!inside ||
        XXH3_64bits(data_ + encoded_offset_ + record.first, record.bytes) != record.encoded_xxh3) {
      done = 0;
    }
  }
  if (done > 0) {
    const float* states = const_cast<WorkFile*>(this)->StatesOf(done % 2);
    if (XXH3_64bits(states, shape_.state_floats * sizeof(float)) !=
        RecordOf(done - 1)->states_xxh3) {
      done = 0;
    }
  }
  if (done == 0) header = wanted;
  return done;
}

absl::Status WorkFile::Sync(int64_t offset, int64_t bytes) {
  const int64_t begin = offset / kAlignment * kAlignment;
  if (TEMP_FAILURE_RETRY(msync(data_ + begin, offset + bytes - begin, MS_SYNC)) == 0)
    return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat(path_, ": writing unfinished work"));
}

absl::Status WorkFile::FinishLayer(int64_t first, int64_t bytes, const EncodingError* errors) {
  Record& record = *RecordOf(layers_done_);
  record = Record{first,
                  bytes,
                  XXH3_64bits(encoded() + first, bytes),
                  XXH3_64bits(next_states(), shape_.state_floats * sizeof(float)),
                  {}};
  std::copy_n(errors, kLayerMatrices.size(), record.errors);
  absl::Status status = Sync(encoded_offset_ + first, bytes);
  status.Update(Sync(reinterpret_cast<uint8_t*>(next_states()) - data_,
                     shape_.state_floats * static_cast<int64_t>(sizeof(float))));
  if (!status.ok()) return status;
  Header& header = *reinterpret_cast<Header*>(data_);
  header.layers_done = ++layers_done_;
  header.xxh3 = HeaderSum(header, RecordOf(0));
  SetWorthless(false);
  return Sync(0, states_offset_);
}

absl::Status WorkFile::Remove() {
  if (unlink(path_.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat(path_, ": deleting the file of unfinished work"));
}

}  // namespace quire
