#include "convert/tensor_source.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire {

absl::Status CheckProportion(const TensorSource& source, double bytes, const std::string& place) {
  double file_bytes = 0;
  for (const auto& file : source.files()) file_bytes += static_cast<double>(file.second);
  if (bytes <= kMaxBytesPerFileByte * file_bytes + kMaxMoreBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "%s: its tensors hold %.0f bytes; the limit is %d times those of its files (%.0f), and %d",
      place, bytes, kMaxBytesPerFileByte, file_bytes, kMaxMoreBytes));
}

}  // namespace quire
