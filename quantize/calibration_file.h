// What a model's matrices multiply, as `quire calibrate` measured it on a text: a file beside the
// model.
//
//   header, 64 bytes: magic "QUIRECAL" | u32 version 1 | u32 flags (1: second moments) | u32
//     n_layers, hidden_dim, q_dim (n_heads * head_dim), ffn_dim | u64 tokens | 16 zero bytes | u64
//     XXH3-64 of the bytes before
//   sections, layer by layer, of each the inputs of wq wk wv, of wo, of w_gate w_up, of w_down:
//     f32 mean of x_i^2 over the tokens, for each of n columns
//     second moments, if any: f32 sums of x_i x_j, blocks of 128 x 128 on and above the diagonal,
//       row by row of blocks; blocks, and elements, row-major; columns padded with zeros
//     u64 XXH3-64 of the section's bytes before
// Little-endian; nothing else, and nothing after.
#ifndef QUIRE_QUANTIZE_CALIBRATION_FILE_H_
#define QUIRE_QUANTIZE_CALIBRATION_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "format/file.h"
#include "format/manifest.pb.h"
#include "format/new_file.h"
#include "quantize/hessian.h"

namespace quire {

inline constexpr int kInputsOfLayer = 4;

struct CalibrationHeader {
  bool has_moments = false;
  uint32_t n_layers = 0, hidden_dim = 0, q_dim = 0, ffn_dim = 0;
  uint64_t tokens = 0;

  static CalibrationHeader Of(const pb::ModelConfig& config, bool has_moments, int64_t tokens);
  // Columns of input 0 .. 3 of a layer.
  int64_t Columns(int input) const;
};

// Written in order. Visible under its name only when whole. Not thread-safe.
class CalibrationWriter {
 public:
  // AlreadyExists, ResourceExhausted and so on as NewFile.
  static absl::StatusOr<std::unique_ptr<CalibrationWriter>> Create(const std::string& path,
                                                                   const CalibrationHeader& header,
                                                                   bool overwrite);
  // The next section: mean squares, and the second moments where the header says so, else null.
  absl::Status Append(const std::vector<float>& mean_squares, const SymmetricMatrix* moments);
  // After the last section.
  absl::Status Finish();

 private:
  CalibrationWriter(const CalibrationHeader& header, std::unique_ptr<NewFile> file)
      : header_(header), file_(std::move(file)) {}
  const CalibrationHeader header_;
  const std::unique_ptr<NewFile> file_;
  int64_t offset_ = 0;
};

// Thread-safe.
class CalibrationFile {
 public:
  // Checks the header and the file's size. InvalidArgument: no such file, or a field is out of
  // bounds; DataLoss: cut, or a checksum differs; Unimplemented: a newer version.
  static absl::StatusOr<CalibrationFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const CalibrationHeader& header() const { return header_; }
  // InvalidArgument where it is about a model of another shape.
  absl::Status CheckFits(const pb::ModelConfig& config) const;

  // Reads a section. DataLoss where its checksum differs; InvalidArgument where a value is not
  // finite, or a mean square negative. `moments` only where the header has them, else null.
  absl::Status Read(int64_t layer, int input, std::vector<float>* mean_squares,
                    SymmetricMatrix* moments) const;

 private:
  CalibrationFile(File file, const CalibrationHeader& header)
      : file_(std::move(file)), header_(header) {}
  File file_;
  CalibrationHeader header_;
};

}  // namespace quire

#endif  // QUIRE_QUANTIZE_CALIBRATION_FILE_H_
