#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "convert/tensor_source.h"
#include "convert/testing/checkpoint_builder.h"
#include "convert/testing/refusal.h"

namespace quire {
namespace {

using absl::StatusCode;

std::string_view Container(const std::string& bytes) {
  auto source = OpenCheckpointFile(WriteTestFile(bytes));
  EXPECT_TRUE(source.ok()) << source.status();
  if (!source.ok()) return "";
  const absl::string_view name = (*source)->container();
  return {name.data(), name.size()};
}

TEST(OpenCheckpointFile, KnowsContainersByTheirContent) {
  EXPECT_EQ(Container(TorchZipFile(FloatsPickle("w", 3), {{"0", FloatsData(3)}})), "torch-zip");
  EXPECT_EQ(Container(LegacyFile(FloatsPickle("w", 3), {"0"}, {{3, FloatsData(3)}})),
            "torch-legacy");
  const std::string header = "{\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}";
  EXPECT_EQ(Container(Le(header.size(), 8) + header + "ab"), "safetensors");
}

TEST(OpenCheckpointFile, SaysWhatElseItFound) {
  const std::pair<std::string, const char*> cases[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"},
      {"\n<!DOCTYPE html><html><body>404</body></html>", "HTML page"},
      {"<HTML>", "HTML page"},
      {"<?xml version=\"1.0\"?><Error/>", "XML"},
      {"\x1f\x8b\x08"
       "0000000000",
       "gzip"},
      {"BZh91AY", "bzip2"},
      {std::string("\xfd"
                   "7zXZ\0\0",
                   7),
       "xz"},
      {"\x28\xb5\x2f\xfd....", "zstd"},
      {"\x89HDF\r\n\x1a\n", "HDF5"},
      {"\x93NUMPY\1", "NumPy"},
      {"lmgg....", "before GGUF"},
      {"\x7f"
       "ELF\2\1\1",
       "program"},
      {"{\"model_type\": \"llama\"}", "JSON"},
      {"just some words\n", "plain text"},
      {"\xff\xfe\xfd\xfc\1\2\3\4\5", "ff fe fd fc"},
      {std::string("\x89QUIRE\r\n", 8), ".quire file"},
      {"x", "plain text"},
      {std::string("\4\0\0\0\1\0\0\0\3\0\0\0V 1", 15), "Lua Torch"},
      {"4\n1\n3\nV 1\n18\n", "Lua Torch"},
      {"\x08\x07\x12\x07pytorch\x1a\5", "ONNX"},
      {std::string("\x08\x03\x12\x0bskl2onnx\x1a\5", 14), "ONNX"},
      {std::string("ARROW1\0\0", 8), "Arrow"},
      {std::string(1000, '\0'), "zeros"},
      {"\xef\xbb\xbf <html>", "HTML"},
      {"<!-- error --> <p>", "HTML"},
      {std::string("\x5d\0\0\x80\0\xff", 6), "LZMA"},
      {std::string("\x04\x22\x4d\x18\x64\x40", 6), "LZ4"},
      {"\x78\x9c\xed\x9d", "zlib"},
  };
  for (const auto& [bytes, word] : cases) {
    ExpectRefused(bytes, OpenCheckpointFile, StatusCode::kInvalidArgument, {word});
  }
  ExpectRefused("", OpenCheckpointFile, StatusCode::kDataLoss, {"empty file"});
  ExpectRefused("\x80\x02N.", OpenCheckpointFile, StatusCode::kInvalidArgument,
                {"pickle", "magic number"});
  ExpectRefused(std::string("PK\5\6") + std::string(18, '\0'), OpenCheckpointFile,
                StatusCode::kNotFound, {"data.pkl"});
}

TEST(OpenCheckpointFile, SaysWhatArchiveItFound) {
  const std::pair<const char*, const char*> cases[] = {
      {"m/archive_format", "torch.export"},
      {"serialized_exported_program.json", "torch.export"},
      {"m/.data/extern_modules", "torch.package"},
      {"m/model.json", "TorchScript"},
      {"weights.npy", ".npz"},
      {"model.weights.h5", "Keras"},
      {"folder/model.safetensors", "holds .safetensors files; unpack it"},
      {"pytorch_model.bin", "holds .bin files; unpack it"},
      {"word/document.xml", "a zip archive of 1 records"},
  };
  for (const auto& [name, word] : cases) {
    ZipEntry entry;
    entry.name = name;
    entry.data = "x";
    ExpectRefused(BuildZip({entry}), OpenCheckpointFile, StatusCode::kNotFound,
                  {word, "NAME/data.pkl"});
  }
}

TEST(OpenCheckpointFile, Case63_FifoDirectoryDevice) {
  const std::string base = ::testing::TempDir() + "/case63." + std::to_string(getpid());
  const std::string fifo = base + ".fifo", folder = base + ".folder",
                    socket_path = base + ".socket";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, socket_path.c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);

  using Open = absl::StatusOr<std::unique_ptr<TensorSource>> (*)(const std::string&);
  for (Open open : {Open{OpenCheckpointFile}, Open{OpenTorchZip}, Open{OpenTorchLegacy},
                    Open{OpenSafetensors}}) {
    for (const std::string& path :
         {fifo, folder, std::string("/dev/zero"), std::string("/dev/null")}) {
      ExpectRefusedFile(path, 0, open, StatusCode::kInvalidArgument, {});
    }
    ExpectRefusedFile(base + ".absent", 0, open, StatusCode::kNotFound, {});
    EXPECT_FALSE(open(socket_path).ok());
  }
  close(fd);
  unlink(fifo.c_str());
  unlink(socket_path.c_str());
  rmdir(folder.c_str());
}

}  // namespace
}  // namespace quire
