#include "quantize/calibration_file.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "format/xxh3.h"
#include "quantize/encode.h"

namespace quire {
namespace {

constexpr char kCalibrationMagic[8] = {'Q', 'U', 'I', 'R', 'E', 'C', 'A', 'L'};
constexpr uint32_t kVersion = 1, kMomentsFlag = 1;
constexpr uint32_t kMaxLayers = 1 << 16, kMaxColumns = 1 << 20;
constexpr int64_t kReadBytes = 8 << 20;

struct StoredHeader {
  char magic[8];
  uint32_t version, flags;
  uint32_t n_layers, hidden_dim, q_dim, ffn_dim;
  uint64_t tokens;
  uint64_t zero[2];
  uint64_t xxh3;
};
static_assert(sizeof(StoredHeader) == 64, "the header has 64 bytes");

uint64_t SumOf(const StoredHeader& header) {
  return XXH3_64bits(&header, offsetof(StoredHeader, xxh3));
}

int64_t SectionBytes(const CalibrationHeader& header, int input) {
  const int64_t n = header.Columns(input);
  return 4 * n + (header.has_moments ? SymmetricMatrix::Bytes(n) : 0) + 8;
}

int64_t LayerBytes(const CalibrationHeader& header) {
  int64_t bytes = 0;
  for (int input = 0; input < kInputsOfLayer; ++input) bytes += SectionBytes(header, input);
  return bytes;
}

}  // namespace

CalibrationHeader CalibrationHeader::Of(const pb::ModelConfig& config, bool has_moments,
                                        int64_t tokens) {
  return {has_moments,         config.n_layers(),
          config.hidden_dim(), config.n_heads() * config.head_dim(),
          config.ffn_dim(),    static_cast<uint64_t>(tokens)};
}

int64_t CalibrationHeader::Columns(int input) const {
  const int64_t columns[kInputsOfLayer] = {hidden_dim, q_dim, hidden_dim, ffn_dim};
  return columns[input];
}

absl::StatusOr<std::unique_ptr<CalibrationWriter>> CalibrationWriter::Create(
    const std::string& path, const CalibrationHeader& header, bool overwrite) {
  absl::StatusOr<std::unique_ptr<NewFile>> file = NewFile::Create(path, overwrite);
  if (!file.ok()) return file.status();
  StoredHeader stored{};
  std::memcpy(stored.magic, kCalibrationMagic, sizeof stored.magic);
  stored.version = kVersion;
  stored.flags = header.has_moments ? kMomentsFlag : 0;
  stored.n_layers = header.n_layers;
  stored.hidden_dim = header.hidden_dim;
  stored.q_dim = header.q_dim;
  stored.ffn_dim = header.ffn_dim;
  stored.tokens = header.tokens;
  stored.xxh3 = SumOf(stored);
  absl::Status status =
      (*file)->Reserve(static_cast<int64_t>(sizeof stored) + header.n_layers * LayerBytes(header));
  if (status.ok()) status = (*file)->WriteAt(0, &stored, sizeof stored);
  if (!status.ok()) return status;
  std::unique_ptr<CalibrationWriter> self(new CalibrationWriter(header, *std::move(file)));
  self->offset_ = sizeof stored;
  return self;
}

absl::Status CalibrationWriter::Append(const std::vector<float>& mean_squares,
                                       const SymmetricMatrix* moments) {
  Xxh3 sum;
  absl::Status status;
  const auto write = [&](const void* data, int64_t bytes) {
    status.Update(file_->WriteAt(offset_, data, bytes));
    offset_ += bytes;
  };
  const int64_t bytes = static_cast<int64_t>(mean_squares.size() * sizeof(float));
  sum.Update(mean_squares.data(), bytes);
  write(mean_squares.data(), bytes);
  if (moments != nullptr) {
    sum.Update(moments->Block(0, 0), SymmetricMatrix::Bytes(moments->n()));
    write(moments->Block(0, 0), SymmetricMatrix::Bytes(moments->n()));
  }
  const uint64_t value = sum.Digest();
  write(&value, sizeof value);
  return status;
}

absl::Status CalibrationWriter::Finish() {
  absl::Status status = file_->Sync();
  return status.ok() ? file_->GiveName() : status;
}

absl::StatusOr<CalibrationFile> CalibrationFile::Open(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  StoredHeader stored;
  const auto refuse = [&](auto make, auto... words) {
    return make(absl::StrCat(path, ": ", words...));
  };
  if (file->size() < static_cast<int64_t>(sizeof stored)) {
    return refuse(absl::InvalidArgumentError, "is no calibration file: ", file->size(), " bytes");
  }
  absl::Status status =
      file->ReadAt(0, absl::MakeSpan(reinterpret_cast<uint8_t*>(&stored), sizeof stored));
  if (!status.ok()) return status;
  if (std::memcmp(stored.magic, kCalibrationMagic, sizeof stored.magic) != 0) {
    return refuse(absl::InvalidArgumentError,
                  "is no calibration file, as quire calibrate writes it");
  }
  if (stored.version != kVersion) {
    return refuse(absl::UnimplementedError, "is of version ", stored.version, ", wanted is ",
                  kVersion);
  }
  if (stored.xxh3 != SumOf(stored)) {
    return refuse(absl::DataLossError, "the checksum of its header differs: the file is damaged");
  }
  const CalibrationHeader header{stored.flags == kMomentsFlag,
                                 stored.n_layers,
                                 stored.hidden_dim,
                                 stored.q_dim,
                                 stored.ffn_dim,
                                 stored.tokens};
  if ((stored.flags & ~kMomentsFlag) != 0 || header.tokens == 0 ||
      (stored.zero[0] | stored.zero[1]) != 0) {
    return refuse(absl::InvalidArgumentError, "its header has unknown flags, or no tokens");
  }
  const uint32_t columns = std::max({header.hidden_dim, header.q_dim, header.ffn_dim});
  if (std::min({header.n_layers, header.hidden_dim, header.q_dim, header.ffn_dim}) == 0 ||
      header.n_layers > kMaxLayers || columns > kMaxColumns) {
    return refuse(absl::InvalidArgumentError, "its header says ", header.n_layers, " layers of ",
                  header.hidden_dim, ", ", header.q_dim, " and ", header.ffn_dim, " columns");
  }
  const int64_t bytes = static_cast<int64_t>(sizeof stored) + header.n_layers * LayerBytes(header);
  if (file->size() != bytes) {
    return refuse(absl::DataLossError, "has ", file->size(), " bytes, its header wants ", bytes,
                  ": the file is cut or has grown");
  }
  return CalibrationFile(*std::move(file), header);
}

absl::Status CalibrationFile::CheckFits(const pb::ModelConfig& config) const {
  const CalibrationHeader wanted = CalibrationHeader::Of(config, false, 1);
  if (header_.n_layers == wanted.n_layers && header_.hidden_dim == wanted.hidden_dim &&
      header_.q_dim == wanted.q_dim && header_.ffn_dim == wanted.ffn_dim) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path(), ": is about another model: ", header_.n_layers, " layers of ", header_.hidden_dim,
      ", ", header_.q_dim, " and ", header_.ffn_dim, " columns; this one has ", wanted.n_layers,
      " of ", wanted.hidden_dim, ", ", wanted.q_dim, " and ", wanted.ffn_dim));
}

absl::Status CalibrationFile::Read(int64_t layer, int input, std::vector<float>* mean_squares,
                                   SymmetricMatrix* moments) const {
  int64_t offset = static_cast<int64_t>(sizeof(StoredHeader)) + layer * LayerBytes(header_);
  for (int i = 0; i < input; ++i) offset += SectionBytes(header_, i);
  Xxh3 sum;
  bool finite = true;
  const auto read = [&](float* values, int64_t n) {
    for (int64_t done = 0; done < n;) {
      const int64_t count = std::min<int64_t>(n - done, kReadBytes / 4);
      absl::Status status = file_.ReadAt(
          offset, absl::MakeSpan(reinterpret_cast<uint8_t*>(values + done), 4 * count));
      if (!status.ok()) return status;
      sum.Update(values + done, 4 * count);
      finite = finite && AllFinite(absl::MakeConstSpan(values + done, count));
      offset += 4 * count;
      done += count;
    }
    return absl::OkStatus();
  };
  const int64_t n = header_.Columns(input);
  mean_squares->resize(n);
  if (absl::Status status = read(mean_squares->data(), n); !status.ok()) return status;
  if (moments != nullptr) {
    *moments = SymmetricMatrix(n);
    if (absl::Status status = read(moments->Block(0, 0), SymmetricMatrix::Bytes(n) / 4);
        !status.ok()) {
      return status;
    }
  } else if (header_.has_moments) {
    std::vector<float> skipped(std::min(kReadBytes, SymmetricMatrix::Bytes(n)) / 4);
    for (int64_t left = SymmetricMatrix::Bytes(n) / 4; left > 0;) {
      const int64_t count = std::min<int64_t>(left, kReadBytes / 4);
      if (absl::Status status = read(skipped.data(), count); !status.ok()) return status;
      left -= count;
    }
  }
  uint64_t expected;
  absl::Status status =
      file_.ReadAt(offset, absl::MakeSpan(reinterpret_cast<uint8_t*>(&expected), sizeof expected));
  if (!status.ok()) return status;
  const std::string place = absl::StrCat(path(), ": input ", input, " of layer ", layer);
  if (sum.Digest() != expected) {
    return absl::DataLossError(absl::StrCat(place, ": its checksum differs: the file is damaged"));
  }
  const auto negative = [](float value) { return value < 0; };
  if (!finite || std::any_of(mean_squares->begin(), mean_squares->end(), negative)) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": has values that are not finite, or squares below zero"));
  }
  return absl::OkStatus();
}

}  // namespace quire
