#include "runtime/logits_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

constexpr char kMagic[8] = {'Q', 'L', 'O', 'G', 'I', 'T', 'S', '1'};
constexpr int64_t kHeaderBytes = sizeof kMagic + sizeof(LogitsHeader);
constexpr double kStep = 30.0 / 65535;

}  // namespace

void EncodeLogitsRow(absl::Span<const float> logits, uint8_t* row) {
  const auto best = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - *best);
  const float max = static_cast<float>(-std::log(sum));
  const int32_t argmax = static_cast<int32_t>(best - logits.begin());
  std::memcpy(row, &max, 4);
  std::memcpy(row + 4, &argmax, 4);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double below = (static_cast<double>(*best) - logits[i]) / kStep;
    const uint16_t code = static_cast<uint16_t>(std::lround(std::min(below, 65535.0)));
    std::memcpy(row + 8 + 2 * i, &code, 2);
  }
}

int32_t DecodeLogitsRow(const uint8_t* row, absl::Span<float> log_probabilities) {
  int32_t argmax;
  std::memcpy(&argmax, row + 4, 4);
  double sum = 0;
  for (size_t i = 0; i < log_probabilities.size(); ++i) {
    uint16_t code;
    std::memcpy(&code, row + 8 + 2 * i, 2);
    const double below = -kStep * code;
    log_probabilities[i] = static_cast<float>(below);
    sum += std::exp(below);
  }
  // The rounded distribution's own sum: the stored maximum says nothing that this does not.
  const float normalizer = static_cast<float>(std::log(sum));
  for (float& p : log_probabilities) p -= normalizer;
  return argmax;
}

absl::StatusOr<std::unique_ptr<LogitsFileWriter>> LogitsFileWriter::Create(
    const std::string& path, const LogitsHeader& header, absl::Span<const int32_t> tokens,
    bool overwrite) {
  absl::StatusOr<std::unique_ptr<NewFile>> file = NewFile::Create(path, overwrite);
  if (!file.ok()) return file.status();
  std::unique_ptr<LogitsFileWriter> self(new LogitsFileWriter(*std::move(file)));
  uint8_t bytes[kHeaderBytes];
  std::memcpy(bytes, kMagic, sizeof kMagic);
  std::memcpy(bytes + sizeof kMagic, &header, sizeof header);
  if (absl::Status status = self->Append(bytes); !status.ok()) return status;
  absl::Status status =
      self->Append({reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size() * 4});
  if (!status.ok()) return status;
  return self;
}

absl::Status LogitsFileWriter::Append(absl::Span<const uint8_t> rows) {
  const auto bytes = static_cast<int64_t>(rows.size());
  absl::Status status = file_->WriteAt(written_, rows.data(), bytes);
  written_ += bytes;
  return status;
}

absl::Status LogitsFileWriter::Finish() {
  absl::Status status = file_->Sync();
  return status.ok() ? file_->GiveName() : status;
}

int64_t LogitsFile::rows_offset() const {
  return kHeaderBytes + 4 * int64_t{header_.n_chunks} * header_.ctx;
}

absl::StatusOr<LogitsFile> LogitsFile::Open(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  uint8_t bytes[kHeaderBytes];
  if (file->size() < kHeaderBytes || !file->ReadAt(0, absl::MakeSpan(bytes)).ok() ||
      std::memcmp(bytes, kMagic, sizeof kMagic) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a file that --save-logits wrote"));
  }
  LogitsHeader header;
  std::memcpy(&header, bytes + sizeof kMagic, sizeof header);
  // Within these limits no product below overflows.
  constexpr uint32_t kLimit = 1 << 24;
  if (header.vocab_size < 1 || header.vocab_size > kLimit || header.ctx < 2 ||
      header.ctx > kLimit || header.n_chunks < 1 || header.n_chunks > 1 << 20 ||
      header.first >= header.ctx - 1 || header.rows() > (int64_t{1} << 36)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": header is out of bounds: vocab_size ", header.vocab_size, ", ctx ",
                     header.ctx, ", n_chunks ", header.n_chunks, ", first ", header.first));
  }
  LogitsFile self(*std::move(file), header);
  const int64_t wanted = self.rows_offset() + header.rows() * header.row_bytes();
  if (self.file_.size() != wanted) {
    return absl::DataLossError(
        absl::StrCat(path, ": is ", self.file_.size(), " bytes long, its header wants ", wanted));
  }
  self.tokens_.resize(int64_t{header.n_chunks} * header.ctx);
  absl::Status status = self.file_.ReadAt(
      kHeaderBytes,
      {reinterpret_cast<uint8_t*>(self.tokens_.data()), self.tokens_.size() * sizeof(int32_t)});
  if (!status.ok()) return status;
  return self;
}

absl::Status LogitsFile::Read(int64_t first, int64_t n, absl::Span<uint8_t> out) const {
  return file_.ReadAt(rows_offset() + first * header_.row_bytes(),
                      out.subspan(0, n * header_.row_bytes()));
}

}  // namespace quire
