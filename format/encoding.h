// The table of encodings: how a stored tensor codes its elements. Plain C++, so that kernels can
// include it.
#ifndef QUIRE_FORMAT_ENCODING_H_
#define QUIRE_FORMAT_ENCODING_H_

#include <stdint.h>

namespace quire {

// Values are stored in files (manifest.proto, EncodingCode); they never change.
enum class Encoding : uint8_t {
  kF32 = 1,
  kF16 = 2,
  kBF16 = 3,
  kQ8 = 4,    // int8 code x f16 scale per group; GGUF's Q8_0 is carried bit for bit
  kQ4 = 5,    // codebook[4-bit code] x int8 scale per group x f32 scale per row
  kQ4_0 = 6,  // (4-bit code - 8) x f16 scale per group; GGUF's Q4_0 is carried bit for bit
  kQ5 = 7,    // codebook[5-bit code] x int8 scale per group x f32 scale per row
  kQ6 = 8,    // (6-bit code - 32) x int8 scale per group x f32 scale per row
  kQ4_1 = 9,  // 4-bit code x f16 scale + f16 minimum per group; GGUF's Q4_1, bit for bit
};

// Order of the elements. Values are stored in files (LayoutCode).
enum class Layout : uint8_t {
  kPanels = 1,  // matrices that are multiplied: panels of 16 rows
  kRows = 2,    // vectors, and tables whose rows are gathered
};

// Columns that share a scale. All encodings pad their columns to a multiple of it.
inline constexpr int kGroupColumns = 32;
// Rows of a panel: sixteen 32-bit lanes make one 64-byte line.
inline constexpr int kPanelRows = 16;
// Groups whose scales are stored together, before their codes (128 columns).
inline constexpr int kBlockGroups = 4;
inline constexpr int kLineBytes = 64;
inline constexpr int kMaxCodebookSize = 32;

struct EncodingInfo {
  Encoding encoding;
  const char* name;   // as in --type and in `quire inspect`
  int code_bits;      // per element
  int scale_bytes;    // per group, a minimum included; 0: no scales
  bool row_scale;     // an f32 per row
  int codebook_size;  // int8 values that codes index; 0: codes are numbers
};

inline constexpr EncodingInfo kEncodings[] = {
    {Encoding::kF32, "f32", 32, 0, false, 0},   {Encoding::kF16, "f16", 16, 0, false, 0},
    {Encoding::kBF16, "bf16", 16, 0, false, 0}, {Encoding::kQ8, "q8", 8, 2, false, 0},
    {Encoding::kQ4, "q4", 4, 1, true, 16},      {Encoding::kQ4_0, "q4_0", 4, 2, false, 0},
    {Encoding::kQ5, "q5", 5, 1, true, 32},      {Encoding::kQ6, "q6", 6, 1, true, 0},
    {Encoding::kQ4_1, "q4_1", 4, 4, false, 0},
};
inline constexpr int kNumEncodings = sizeof(kEncodings) / sizeof(kEncodings[0]);

constexpr bool IsKnownEncoding(int code) { return code >= 1 && code <= kNumEncodings; }
// Precondition: IsKnownEncoding.
constexpr const EncodingInfo& Info(Encoding e) { return kEncodings[static_cast<int>(e) - 1]; }

// Codes of 4 to 6 bits: the low four as nibbles, the rest in planes behind a group's nibbles.
constexpr int HighBits(Encoding e) { return Info(e).code_bits < 8 ? Info(e).code_bits - 4 : 0; }

}  // namespace quire

#endif  // QUIRE_FORMAT_ENCODING_H_
