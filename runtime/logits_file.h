// Next-token distributions of one model over a text, kept in a file so that another model can be
// compared with them.
//
// Little-endian, written and read by the machines that run models:
//   header  "QLOGITS1", then u32: vocab_size, ctx, n_chunks, first (scored positions of a chunk:
//   first .. ctx - 2) tokens  i32 [n_chunks][ctx] row     for each scored position of each chunk:
//   f32 max, i32 argmax, u16 [vocab_size] codes
// max is the largest log-probability (natural), argmax its token; a code c stands for max - c x 30
// / 65535, so that every log-probability within 30 of the largest is kept to 2.3e-4, those below
// count as 30 below.
#ifndef QUIRE_RUNTIME_LOGITS_FILE_H_
#define QUIRE_RUNTIME_LOGITS_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "format/file.h"
#include "format/new_file.h"

namespace quire {

struct LogitsHeader {
  uint32_t vocab_size = 0, ctx = 0, n_chunks = 0, first = 0;

  int64_t rows() const { return int64_t{n_chunks} * (int64_t{ctx} - 1 - first); }
  int64_t row_bytes() const { return 8 + 2 * int64_t{vocab_size}; }
};

// Encodes the distribution that `logits` stand for into row[header.row_bytes()]. Thread-safe.
void EncodeLogitsRow(absl::Span<const float> logits, uint8_t* row);

// A distribution that was read back: log-probabilities, normalised. Returns the most likely token.
// Thread-safe.
int32_t DecodeLogitsRow(const uint8_t* row, absl::Span<float> log_probabilities);

// Not thread-safe. Appears under its name only when whole; a writer destroyed before Finish leaves
// nothing.
class LogitsFileWriter {
 public:
  // What NewFile::Create returns.
  static absl::StatusOr<std::unique_ptr<LogitsFileWriter>> Create(const std::string& path,
                                                                  const LogitsHeader& header,
                                                                  absl::Span<const int32_t> tokens,
                                                                  bool overwrite);
  absl::Status Append(absl::Span<const uint8_t> rows);
  absl::Status Finish();

 private:
  explicit LogitsFileWriter(std::unique_ptr<NewFile> file) : file_(std::move(file)) {}
  std::unique_ptr<NewFile> file_;
  int64_t written_ = 0;
};

// Immutable; thread-safe.
class LogitsFile {
 public:
  // InvalidArgument: not such a file. DataLoss: not as long as its header says.
  static absl::StatusOr<LogitsFile> Open(const std::string& path);
  const LogitsHeader& header() const { return header_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  // Rows [first, first + n) into out[n x row_bytes].
  absl::Status Read(int64_t first, int64_t n, absl::Span<uint8_t> out) const;

 private:
  LogitsFile(File file, const LogitsHeader& header) : file_(std::move(file)), header_(header) {}
  int64_t rows_offset() const;
  File file_;
  LogitsHeader header_;
  std::vector<int32_t> tokens_;
};

}  // namespace quire

#endif  // QUIRE_RUNTIME_LOGITS_FILE_H_
