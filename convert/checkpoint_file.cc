// Which container a file is, by its content; names promise nothing.
#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "convert/little_endian.h"
#include "convert/tensor_source.h"
#include "convert/text_coding.h"
#include "format/file.h"
#include "format/header.h"

namespace quire {
namespace {

constexpr int64_t kHeadBytes = 512;  // to the magic of a tar header, and a page's <html>

// What is often found where a checkpoint should be.
struct Impostor {
  size_t offset;
  absl::string_view magic;
  const char* what;
};
constexpr Impostor kImpostors[] = {
    {0, "version https://git-lfs.github.com/spec/",
     "a Git LFS pointer, not the file it points to; run `git lfs pull`"},
    {0, "\x1f\x8b", "compressed with gzip; unpack it first"},
    {0, "BZh", "compressed with bzip2; unpack it first"},
    {0,
     "\xfd"
     "7zXZ",
     "compressed with xz; unpack it first"},
    {0, "\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"},
    {0, "7z\xbc\xaf", "a 7-Zip archive; unpack it first"},
    {0, "Rar!", "a RAR archive; unpack it first"},
    {0, "\x89HDF", "an HDF5 file (Keras, TensorFlow)"},
    {0, "\x93NUMPY", "a NumPy array"},
    {0, "\x89PNG", "a PNG image"},
    {0, "%PDF", "a PDF document"},
    {0,
     "\x7f"
     "ELF",
     "a program (ELF)"},
    {4, "TFL3", "a TensorFlow Lite model"},
    {0, "lmgg", "a GGML file from before GGUF; convert it to GGUF first"},
    {0, "fmgg", "a GGML file from before GGUF; convert it to GGUF first"},
    {0, "tjgg", "a GGML file from before GGUF; convert it to GGUF first"},
    {0, "PAR1", "a Parquet file"},
    {0, "ARROW1", "an Arrow file"},
    {4, absl::string_view("\1\0\0\0\3\0\0\0V 1", 11), "a file of Lua Torch (.t7)"},
    {0, "4\n1\n3\nV 1\n", "a file of Lua Torch (.t7)"},
    {0, absl::string_view("\x5d\0\0", 3), "compressed with LZMA; unpack it first"},
    {0, "\x04\x22\x4d\x18", "compressed with LZ4; unpack it first"},
    {0, "\x78\x01", "compressed with zlib, as joblib does"},
    {0, "\x78\x9c", "compressed with zlib, as joblib does"},
    {0, "\x78\xda", "compressed with zlib, as joblib does"},
};

absl::Status NotACheckpoint(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", what,
                   "; known are files of torch.save, safetensors, GGUF, and "
                   "folders of Hugging Face or Meta"));
}

// A few words on bytes that are no checkpoint of ours.
std::string Describe(absl::string_view head) {
  for (const Impostor& row : kImpostors) {
    if (head.size() >= row.offset && absl::StartsWith(head.substr(row.offset), row.magic))
      return row.what;
  }
  if (std::count(head.begin(), head.end(), '\0') == static_cast<int64_t>(head.size()))
    return "zeros, as in the place of a download that has not arrived";
  // The version of the format, then who wrote it.
  if (head.size() > 3 && head[0] == '\x08' && head[2] == '\x12') return "an ONNX model";
  const absl::string_view text =
      absl::StripLeadingAsciiWhitespace(absl::StripPrefix(head, "\xef\xbb\xbf"));
  for (const char* begin : {"<!doctype html", "<html", "<head", "<body", "<!--"}) {
    if (absl::StartsWithIgnoreCase(text, begin))
      return "an HTML page, perhaps of a download that failed";
  }
  if (absl::StartsWith(text, "<?xml")) return "an XML document, perhaps of a download that failed";
  if (absl::StartsWith(text, "{") || absl::StartsWith(text, "[")) return "JSON text";
  // The head may end inside of a character.
  if (IsValidUtf8(head.substr(0, head.size() - std::min<size_t>(head.size(), 3))) &&
      std::none_of(head.begin(), head.end(),
                   [](char c) { return absl::ascii_iscntrl(c) && !absl::ascii_isspace(c); })) {
    return "plain text";
  }
  std::string hex;
  for (unsigned char c : head.substr(0, 8))
    absl::StrAppend(&hex, " ", absl::Hex(c, absl::kZeroPad2));
  return absl::StrCat("no checkpoint: it begins with the bytes", hex);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenCheckpointFile(const std::string& path) {
  absl::StatusOr<File> file = File::Open(path);
  if (!file.ok()) return file.status();
  if (file->size() == 0) return absl::DataLossError(absl::StrCat(path, ": an empty file"));

  std::string head(std::min(file->size(), kHeadBytes), '\0');
  if (auto s = file->ReadAt(0, absl::MakeSpan(reinterpret_cast<uint8_t*>(&head[0]), head.size()));
      !s.ok()) {
    return s;
  }
  if (absl::StartsWith(head, "PK\x03\x04") || absl::StartsWith(head, "PK\x05\x06")) {
    return OpenTorchZip(path);
  }
  if (absl::StartsWith(head, "GGUF") || absl::StartsWith(head, "FUGG")) return OpenGguf(path);
  const bool tar = head.size() >= 262 && head.compare(257, 5, "ustar") == 0;
  const bool pickle = head.size() >= 2 && head[0] == '\x80' && head[1] >= 0 && head[1] <= 5;
  // torch's magic number in protocols 0 and 1.
  const bool old_pickle = absl::StartsWith(head, "L119547037146038801333356L");
  if (tar || pickle || old_pickle) return OpenTorchLegacy(path);
  // A length that leaves room in the file, and the header's brace.
  if (head.size() > 8 && head[8] == '{' &&
      LoadLittleEndian<uint64_t>(head.data()) < (uint64_t{1} << 40)) {
    return OpenSafetensors(path);
  }
  if (absl::StartsWith(head,
                       absl::string_view(reinterpret_cast<const char*>(kMagic), sizeof kMagic))) {
    return NotACheckpoint(path, "a .quire file, which is converted already");
  }
  return NotACheckpoint(path, Describe(head));
}

}  // namespace quire
