// The bytes of a file are a promise: this build's writer must write what the committed file holds.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "format/model_file.h"
#include "format/test_model.h"

namespace quire {
namespace {

constexpr char kGolden[] = "tests/testdata/golden.quire";

TEST(Golden, TheWriterWritesTheCommittedFile) {
  const std::string written = WriteTestModel(testing::TempDir() + "/golden.quire");
  const std::string golden = ReadFileOrDie(kGolden);
  ASSERT_EQ(written.size(), golden.size());
  for (size_t i = 0; i < golden.size(); ++i) ASSERT_EQ(written[i], golden[i]) << "byte " << i;
}

TEST(Golden, TheCommittedFileVerifies) {
  auto model = ModelFile::Open(kGolden);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->Verify([](int64_t) {}).ok());
}

TEST(Golden, TheDocumentShowsItsFirstBytes) {
  const std::string golden = ReadFileOrDie(kGolden);
  std::string dump;
  for (int line = 0; line < 10; ++line) {
    dump += absl::StrFormat("%08x ", 16 * line);
    for (int i = 0; i < 16; ++i)
      dump += absl::StrFormat(" %02x", static_cast<uint8_t>(golden[16 * line + i]));
    dump += "\n";
  }
  EXPECT_TRUE(absl::StrContains(ReadFileOrDie("format/FORMAT.md"), dump)) << dump;
}

}  // namespace
}  // namespace quire
