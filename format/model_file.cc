#include "format/model_file.h"

#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "format/header.h"
#include "format/manifest_check.h"
#include "format/thread_pool.h"
#include "format/xxh3.h"

namespace quire {
namespace {

absl::Status WithPath(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

bool ParseWithDepth(const std::string& bytes, int depth, pb::Manifest* manifest) {
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                static_cast<int>(bytes.size()));
  stream.SetRecursionLimit(depth);
  return manifest->ParseFromCodedStream(&stream) && stream.ConsumedEntireMessage();
}

absl::Status ParseManifest(const std::string& bytes, pb::Manifest* manifest) {
  constexpr int kMaxDepth = 100;
  if (!ParseWithDepth(bytes, kMaxDepth, manifest)) {
    if (ParseWithDepth(bytes, 100 * kMaxDepth, manifest)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the manifest is nested deeper than ", kMaxDepth));
    }
    return absl::InvalidArgumentError(
        "the manifest is not a protobuf message of the expected kind");
  }
  // A canonical encoding has this size; a singular field that occurs twice, an overlong varint or a
  // field's default value written out make it longer.
  if (manifest->ByteSizeLong() != bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the manifest has ", bytes.size(), " bytes, its content needs ", manifest->ByteSizeLong(),
        ": a repeated singular field or an overlong number"));
  }
  return absl::OkStatus();
}

// Offsets and sizes are the ones that the shapes give, and every checksum is there.
absl::Status CheckRanges(const pb::Manifest& manifest, int64_t manifest_bytes, int64_t file_bytes) {
  const bool has_tokenizer = manifest.has_tokenizer();
  if (has_tokenizer) {
    const uint64_t bytes = manifest.tokenizer().bytes();
    if (bytes < 1) return absl::InvalidArgumentError("the tokenizer section is empty");
    if (bytes > static_cast<uint64_t>(kMaxTokenizerBytes)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("tokenizer of ", bytes, " bytes, the limit is ", kMaxTokenizerBytes));
    }
    if (!manifest.tokenizer().has_xxh3())
      return absl::InvalidArgumentError("the tokenizer section has no checksum");
  }
  pb::Manifest plan = manifest;
  int64_t total = kHeaderBytes + manifest_bytes;
  for (const pb::TensorEntry& tensor : manifest.tensors()) {
    // Checked as a sum first: what follows cannot overflow.
    const int64_t bytes = GeometryOf(tensor).bytes();
    if (bytes > file_bytes - total) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name(), "\": needs ",
                                                     bytes, " bytes, ", file_bytes - total,
                                                     " are left in a file of ", file_bytes));
    }
    total += bytes;
  }
  const int64_t planned =
      PlanOffsets(&plan, manifest_bytes, has_tokenizer ? manifest.tokenizer().bytes() : 0);
  for (int i = 0; i < manifest.tensors_size(); ++i) {
    const pb::TensorEntry& tensor = manifest.tensors(i);
    const auto invalid = [&](const char* field, uint64_t found, uint64_t wanted) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name(), "\": ", field,
                                                     " is ", found,
                                                     ", its place in the file needs ", wanted));
    };
    if (tensor.offset() != plan.tensors(i).offset())
      return invalid("offset", tensor.offset(), plan.tensors(i).offset());
    if (tensor.bytes() != plan.tensors(i).bytes())
      return invalid("bytes", tensor.bytes(), plan.tensors(i).bytes());
    if (!tensor.has_xxh3()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", tensor.name(), "\": no checksum"));
    }
  }
  if (has_tokenizer && manifest.tokenizer().offset() != plan.tokenizer().offset()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer: offset is ", manifest.tokenizer().offset(),
                     ", its place in the file needs ", plan.tokenizer().offset()));
  }
  if (planned != file_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the content needs ", planned, " bytes, the file has ", file_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Map(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  if (file->size() == 0) return absl::DataLossError(absl::StrCat(path, ": the file is empty"));
  void* data = mmap(nullptr, file->size(), PROT_READ, MAP_SHARED, file->fd(), 0);
  // Some file systems, such as FUSE with direct_io, have no shared mappings. Of pages that are only
  // read a private one takes no copy either.
  if (data == MAP_FAILED && errno == ENODEV)
    data = mmap(nullptr, file->size(), PROT_READ, MAP_PRIVATE, file->fd(), 0);
  if (data == MAP_FAILED && errno == ENODEV) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": its file system has no mapped files; copy it to one that has"));
  }
  if (data == MAP_FAILED)
    return ErrnoStatus(errno, absl::StrCat(path, ": cannot map ", file->size(), " bytes"));
  // Where the file system can: page cache in huge pages, read in as such and mapped by one entry
  // each.
  madvise(data, file->size(), MADV_HUGEPAGE);
  return MappedFile(*std::move(file), static_cast<const uint8_t*>(data));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : file_(std::move(other.file_)), data_(std::exchange(other.data_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(data_, other.data_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), file_.size());
}

absl::Status MappedFile::CheckUnchanged() const {
  struct stat now;
  if (fstat(file_.fd(), &now) != 0 || now.st_size == size()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(file_.path(), ": was ", size(),
                                          " bytes long when it was opened and is ", now.st_size,
                                          " now: the output cannot be trusted"));
}

absl::StatusOr<ModelFile> ModelFile::Open(const std::string& path) {
  absl::StatusOr<MappedFile> mapped = MappedFile::Map(path);
  if (!mapped.ok()) return mapped.status();
  ModelFile model(*std::move(mapped));
  const File& file = model.file_.file();
  // Header and manifest are read, not touched through the mapping: a file that shrinks meanwhile is
  // an error, not a signal. And read without readahead, which would bring in weights.
  posix_fadvise(file.fd(), 0, 0, POSIX_FADV_RANDOM);
  uint8_t head[kHeaderBytes] = {};
  absl::Status status =
      file.ReadAt(0, absl::MakeSpan(head, std::min<int64_t>(kHeaderBytes, file.size())));
  if (!status.ok()) return status;
  Header header;
  status = Header::Parse(path, head, file.size(), &header);
  if (!status.ok()) return status;
  std::string bytes(header.manifest_bytes, '\0');
  status = file.ReadAt(kHeaderBytes,
                       absl::MakeSpan(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()));
  if (!status.ok()) return status;
  posix_fadvise(file.fd(), 0, 0, POSIX_FADV_NORMAL);
  if (XXH3_64bits(bytes.data(), bytes.size()) != header.manifest_xxh3) {
    return absl::DataLossError(
        absl::StrCat(path, ": the manifest's checksum differs: the file is damaged"));
  }
  model.manifest_ = std::make_unique<pb::Manifest>();
  status = ParseManifest(bytes, model.manifest_.get());
  if (status.ok()) status = CheckManifest(*model.manifest_);
  if (status.ok()) status = CheckRanges(*model.manifest_, header.manifest_bytes, header.file_bytes);
  if (!status.ok()) return WithPath(path, status);

  const pb::Manifest& manifest = *model.manifest_;
  model.tensors_.reserve(manifest.tensors_size());
  for (const pb::TensorEntry& entry : manifest.tensors()) {
    TensorView view;
    view.name = entry.name();
    view.shape.assign(entry.shape().begin(), entry.shape().end());
    view.geometry = GeometryOf(entry);
    view.codebook = CodebookOf(manifest, entry);
    view.data = model.file_.data() + entry.offset();
    view.offset = static_cast<int64_t>(entry.offset());
    view.bytes = static_cast<int64_t>(entry.bytes());
    view.xxh3 = entry.xxh3();
    model.by_name_.emplace(view.name, static_cast<int>(model.tensors_.size()));
    model.tensors_.push_back(std::move(view));
  }
  return model;
}

const TensorView* ModelFile::Find(absl::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

absl::StatusOr<pb::Tokenizer> ModelFile::LoadTokenizer() const {
  if (!manifest_->has_tokenizer())
    return absl::NotFoundError(absl::StrCat(path(), ": the file has no tokenizer"));
  const pb::Section& section = manifest_->tokenizer();
  std::string bytes(section.bytes(), '\0');
  absl::Status status =
      file_.file().ReadAt(static_cast<int64_t>(section.offset()),
                          absl::MakeSpan(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()));
  if (!status.ok()) return status;
  if (XXH3_64bits(bytes.data(), bytes.size()) != section.xxh3()) {
    return absl::DataLossError(
        absl::StrCat(path(), ": the tokenizer's checksum differs: the file is damaged"));
  }
  pb::Tokenizer tokenizer;
  if (!tokenizer.ParseFromString(bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path(), ": the tokenizer section is not the expected protobuf message"));
  }
  return tokenizer;
}

absl::Status ModelFile::Verify(absl::FunctionRef<void(int64_t done_bytes)> progress) const {
  const File& file = file_.file();
  constexpr int64_t kChunk = 1 << 20;
  // Ranges that must be zero: from the end of one part to the start of the next.
  struct Gap {
    int64_t begin, end;
  };
  std::vector<Gap> gaps;
  int64_t end = kHeaderBytes + static_cast<int64_t>(manifest_->ByteSizeLong());
  for (const TensorView& tensor : tensors_) {
    gaps.push_back({end, tensor.offset});
    end = tensor.offset + tensor.bytes;
  }
  if (has_tokenizer()) {
    gaps.push_back({end, static_cast<int64_t>(manifest_->tokenizer().offset())});
    end = static_cast<int64_t>(manifest_->tokenizer().offset() + manifest_->tokenizer().bytes());
  }
  gaps.push_back({end, file.size()});
  for (const Gap& gap : gaps) {
    std::vector<uint8_t> bytes(gap.end - gap.begin);
    absl::Status status = file.ReadAt(gap.begin, absl::MakeSpan(bytes));
    if (!status.ok()) return status;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] != 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(path(), ": padding byte at ", gap.begin + i, " is not 0"));
      }
    }
  }

  std::vector<absl::Status> results(tensors_.size());
  std::atomic<int64_t> done{0};
  ThreadPool pool(DefaultThreads());
  std::vector<std::vector<uint8_t>> buffers(pool.size());
  pool.ParallelFor(static_cast<int64_t>(tensors_.size()), [&](int64_t i, int thread) {
    const TensorView& tensor = tensors_[i];
    const int64_t unit_bytes = tensor.geometry.unit_bytes();
    const int64_t step = std::max<int64_t>(1, kChunk / unit_bytes);
    Xxh3 sum;
    absl::Status& status = results[i];
    for (int64_t unit = 0; status.ok() && unit < tensor.geometry.units(); unit += step) {
      const int64_t n = std::min(step, tensor.geometry.units() - unit);
      buffers[thread].resize(std::max<int64_t>(buffers[thread].size(), n * unit_bytes));
      const absl::Span<uint8_t> bytes(buffers[thread].data(), n * unit_bytes);
      status = file.ReadAt(tensor.offset + unit * unit_bytes, bytes);
      if (!status.ok()) break;
      sum.Update(bytes.data(), bytes.size());
      for (int64_t u = 0; u < n && status.ok(); ++u) {
        if (!ScalesAreFinite(tensor.geometry, bytes.data() + u * unit_bytes)) {
          status = absl::InvalidArgumentError(
              absl::StrCat(path(), ": tensor \"", tensor.name, "\": a scale near row ",
                           (unit + u) * tensor.geometry.unit_rows(), " is not finite"));
        }
      }
      const int64_t total_done = done.fetch_add(n * unit_bytes) + n * unit_bytes;
      if (thread == 0) progress(total_done);
    }
    const uint64_t found = sum.Digest();
    // A wrong checksum is the cause of what else is wrong.
    if ((status.ok() || absl::IsInvalidArgument(status)) && found != tensor.xxh3) {
      status = absl::DataLossError(absl::StrFormat(
          "%s: tensor \"%s\" (bytes %d to %d): checksum %016x, wanted %016x: the file is damaged",
          path(), tensor.name, tensor.offset, tensor.offset + tensor.bytes, found, tensor.xxh3));
    }
  });
  for (const absl::Status& status : results) {
    if (!status.ok()) return status;
  }
  return has_tokenizer() ? LoadTokenizer().status() : absl::OkStatus();
}

double LayerBitsPerWeight(const pb::Manifest& manifest) {
  double bits = 0, weights = 0;
  for (const pb::TensorEntry& tensor : manifest.tensors()) {
    if (!absl::StartsWith(tensor.name(), "layers.") || tensor.shape_size() != 2) continue;
    bits += 8.0 * static_cast<double>(tensor.bytes());
    weights += static_cast<double>(tensor.shape(0)) * static_cast<double>(tensor.shape(1));
  }
  return weights == 0 ? 0 : bits / weights;
}

}  // namespace quire
