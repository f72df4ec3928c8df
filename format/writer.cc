#include "format/writer.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "format/header.h"
#include "format/manifest_check.h"
#include "format/model_file.h"
#include "format/new_file.h"
#include "format/xxh3.h"

namespace quire {
namespace {

// The page cache keeps what is written at once in one piece, if it can. Huge pages, which are
// mapped by one entry each, come from writes as long and as aligned as they are.
constexpr int64_t kPieceBytes = 2 << 20;

// Serialized size does not depend on offsets and checksums: they are fixed64 and always present.
int64_t ManifestBytes(const pb::Manifest& manifest) {
  return static_cast<int64_t>(manifest.ByteSizeLong());
}

}  // namespace

absl::StatusOr<int64_t> PlanFile(int64_t tokenizer_bytes, pb::Manifest* manifest) {
  absl::Status status = CheckManifest(*manifest);
  if (!status.ok()) return status;
  for (pb::TensorEntry& tensor : *manifest->mutable_tensors()) {
    tensor.set_offset(1);  // proto3 leaves zeros out: no offset or size of ours is zero
    tensor.set_bytes(1);
    tensor.set_xxh3(0);
  }
  if (tokenizer_bytes > kMaxTokenizerBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("tokenizer of ", tokenizer_bytes,
                                                     " bytes, the limit is ", kMaxTokenizerBytes));
  }
  manifest->clear_tokenizer();
  if (tokenizer_bytes > 0) {
    manifest->mutable_tokenizer()->set_offset(1);
    manifest->mutable_tokenizer()->set_bytes(1);
    manifest->mutable_tokenizer()->set_xxh3(0);
  }
  const int64_t manifest_bytes = ManifestBytes(*manifest);
  if (manifest_bytes > kMaxManifestBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("manifest of ", manifest_bytes, " bytes, the limit is ", kMaxManifestBytes));
  }
  return PlanOffsets(manifest, manifest_bytes, tokenizer_bytes);
}

struct FileWriter::Impl {
  std::unique_ptr<NewFile> file;
  pb::Manifest manifest;
  std::string tokenizer;
  int64_t file_bytes = 0;
  int tensor = 0;        // the one that grows
  int64_t appended = 0;  // bytes of it
  std::vector<uint8_t> piece = std::vector<uint8_t>(kPieceBytes);
  int64_t position = 0;  // in the file, of the next byte that goes to `piece`
  int64_t written_back = 0;
  Xxh3 sum;

  // The next bytes of the file (null: zeros), written when a piece is full.
  absl::Status Put(const uint8_t* data, int64_t bytes) {
    while (bytes > 0) {
      const int64_t at = position % kPieceBytes, n = std::min(bytes, kPieceBytes - at);
      if (data == nullptr) {
        std::memset(piece.data() + at, 0, n);
      } else {
        std::memcpy(piece.data() + at, data, n);
        data += n;
      }
      position += n;
      bytes -= n;
      if (position % kPieceBytes != 0) continue;
      absl::Status status = file->WriteAt(position - kPieceBytes, piece.data(), kPieceBytes);
      if (!status.ok()) return status;
      // Start writing to disk now, so that the sync at the end has little left to wait for.
      constexpr int64_t kWriteBack = 32 << 20;
      if (position - written_back >= kWriteBack) {
        sync_file_range(file->fd(), written_back, position - written_back, SYNC_FILE_RANGE_WRITE);
        written_back = position;
      }
    }
    return absl::OkStatus();
  }

  absl::Status PutAt(int64_t offset, const void* data, int64_t bytes) {
    absl::Status status = Put(nullptr, offset - position);
    if (status.ok()) status = Put(static_cast<const uint8_t*>(data), bytes);
    return status;
  }
};

FileWriter::FileWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FileWriter::~FileWriter() = default;
const pb::Manifest& FileWriter::manifest() const { return impl_->manifest; }

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Create(const std::string& path,
                                                               pb::Manifest manifest,
                                                               std::string tokenizer,
                                                               bool overwrite) {
  auto impl = std::make_unique<Impl>();
  absl::StatusOr<std::unique_ptr<NewFile>> file = NewFile::Create(path, overwrite);
  if (!file.ok()) return file.status();
  impl->file = *std::move(file);
  absl::StatusOr<int64_t> file_bytes = PlanFile(static_cast<int64_t>(tokenizer.size()), &manifest);
  if (!file_bytes.ok()) {
    return absl::Status(file_bytes.status().code(),
                        absl::StrCat(path, ": ", file_bytes.status().message()));
  }
  impl->file_bytes = *file_bytes;
  impl->manifest = std::move(manifest);
  impl->tokenizer = std::move(tokenizer);
  absl::Status status = impl->file->Reserve(impl->file_bytes);
  if (!status.ok()) return status;
  if (impl->manifest.tensors_size() > 0) {
    // Header and manifest are written last.
    impl->position =
        static_cast<int64_t>(impl->manifest.tensors(0).offset()) / kPieceBytes * kPieceBytes;
  }
  return std::unique_ptr<FileWriter>(new FileWriter(std::move(impl)));
}

absl::Status FileWriter::Append(absl::Span<const uint8_t> bytes) {
  Impl& w = *impl_;
  while (!bytes.empty()) {
    if (w.tensor == w.manifest.tensors_size()) {
      return absl::InternalError(absl::StrCat(w.file->path(), ": more tensor bytes than planned"));
    }
    pb::TensorEntry& entry = *w.manifest.mutable_tensors(w.tensor);
    const int64_t n =
        std::min<int64_t>(bytes.size(), static_cast<int64_t>(entry.bytes()) - w.appended);
    w.sum.Update(bytes.data(), n);
    const int64_t offset = static_cast<int64_t>(entry.offset()) + w.appended;
    absl::Status status = w.PutAt(offset, bytes.data(), n);
    if (!status.ok()) return status;
    bytes.remove_prefix(n);
    w.appended += n;
    if (w.appended == static_cast<int64_t>(entry.bytes())) {
      entry.set_xxh3(w.sum.Digest());
      w.sum.Reset();
      w.appended = 0;
      ++w.tensor;
    }
  }
  return absl::OkStatus();
}

absl::Status FileWriter::Finish() {
  Impl& w = *impl_;
  if (w.tensor != w.manifest.tensors_size()) {
    return absl::InternalError(
        absl::StrCat(w.file->path(), ": tensor ", w.tensor, " is not complete"));
  }
  absl::Status status;
  if (!w.tokenizer.empty()) {
    w.manifest.mutable_tokenizer()->set_xxh3(XXH3_64bits(w.tokenizer.data(), w.tokenizer.size()));
    status = w.PutAt(static_cast<int64_t>(w.manifest.tokenizer().offset()), w.tokenizer.data(),
                     static_cast<int64_t>(w.tokenizer.size()));
    if (!status.ok()) return status;
  }
  const int64_t rest = w.position % kPieceBytes;
  status = w.file->WriteAt(w.position - rest, w.piece.data(), rest);
  if (!status.ok()) return status;
  const std::string manifest = w.manifest.SerializeAsString();
  status = w.file->WriteAt(kHeaderBytes, manifest.data(), static_cast<int64_t>(manifest.size()));
  if (!status.ok()) return status;
  Header header;
  header.manifest_bytes = static_cast<int64_t>(manifest.size());
  header.manifest_xxh3 = XXH3_64bits(manifest.data(), manifest.size());
  header.file_bytes = w.file_bytes;
  uint8_t bytes[kHeaderBytes];
  header.Serialize(bytes);
  status = w.file->WriteAt(0, bytes, kHeaderBytes);
  if (!status.ok()) return status;
  status = w.file->Sync();
  if (!status.ok()) return status;
  status = ModelFile::Open(absl::StrCat("/proc/self/fd/", w.file->fd())).status();
  if (!status.ok())
    return absl::InternalError(
        absl::StrCat(w.file->path(), ": what was written does not open: ", status.message()));
  return w.file->GiveName();
}

}  // namespace quire
