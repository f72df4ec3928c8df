// Weights that are taken away in the middle of a run come back from the file: the same tokens,
// later.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/footprint/residency.h"
#include "runtime/session.h"
#include "tests/forward/random_model.h"

namespace quire {
namespace {

// About 30 MB in q4.
pb::ModelConfig MediumConfig() {
  pb::ModelConfig config = SmallConfig();
  config.set_hidden_dim(1024);
  config.set_n_heads(8);
  config.set_n_kv_heads(4);
  config.set_head_dim(128);
  config.set_ffn_dim(2816);
  config.set_n_layers(4);
  return config;
}

int64_t Cached(const MappedFile& file) { return Residency::Read(file)->bytes(); }

TEST(Eviction, ChangesNothingButTime) {
  const std::string path = testing::TempDir() + "/eviction.quire";
  const pb::ModelConfig config = MediumConfig();
  WriteRandomModel(path, config, Encoding::kQ4, Encoding::kQ8, 3);
  const std::vector<int32_t> prompt = SomeTokens(5, config);
  const std::unique_ptr<Session> calm = *Session::Open(path, {});
  Sampler sampler(SamplerOptions{});
  const Generation want = *calm->Generate(prompt, 12, {}, sampler, [](int32_t) {});

  const std::unique_ptr<Session> session = *Session::Open(path, {});
  const MappedFile& file = session->model().file().mapping();
  int evicted = 0;
  const Generation got = *session->Generate(prompt, 12, {}, sampler, [&](int32_t) {
    // Out of both mappings, then out of the page cache.
    for (const MappedFile* mapping : {&calm->model().file().mapping(), &file}) {
      madvise(const_cast<uint8_t*>(mapping->data()), mapping->size(), MADV_DONTNEED);
    }
    const int64_t before = Cached(file);
    posix_fadvise(file.file().fd(), 0, 0, POSIX_FADV_DONTNEED);
    EXPECT_GT(before, file.size() / 2);  // the pass before has brought it all back
    evicted += Cached(file) < before / 10;
  });
  EXPECT_EQ(got.tokens, want.tokens);
  if (evicted == 0) GTEST_SKIP() << "this file system cannot drop its page cache";
  EXPECT_GE(evicted, 6);
}

// A pass reads the weights where they lie: whatever is written down, is written elsewhere.
TEST(Eviction, TheMappingRefusesWrites) {
  const std::string path = testing::TempDir() + "/protection.quire";
  WriteRandomModel(path, SmallConfig(), Encoding::kQ4, Encoding::kQ8, 4);
  const std::unique_ptr<Session> session = *Session::Open(path, {});
  uint8_t* weights = const_cast<uint8_t*>(session->model().file().tensors()[0].data);
  EXPECT_DEATH(*static_cast<volatile uint8_t*>(weights) = 1, "");
  // The file is open for reading alone, so that not even mprotect could change that.
  EXPECT_NE(mprotect(weights, 4096, PROT_READ | PROT_WRITE), 0);
}

}  // namespace
}  // namespace quire
