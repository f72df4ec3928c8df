// Writes the seeds of the corpora model_file, derived, tokenizer (sections), rebuild and
// safetensors.
//
//   bazel run //tests/fuzz:make_model_seeds -- "$PWD/tests/fuzz/corpus"
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "format/test_model.h"
#include "tests/forward/random_model.h"
#include "tests/fuzz/model_file_input.h"
#include "tests/fuzz/sample_tokenizers.h"

int main(int argc, char** argv) {
  using namespace quire;
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  const std::string folder = argv[1], scratch = folder + "/scratch.quire";
  const std::vector<pb::Tokenizer> tokenizers = SampleTokenizers();
  ModelFileInput input;
  input.flags = ModelFileInput::kPlace | ModelFileInput::kSum;
  for (int i = 0; i < 64; ++i) input.content.push_back(static_cast<char>(i * 37 % 0x3c));
  input.tokenizer = tokenizers[0].SerializeAsString();
  input.manifest = ManifestOf(WriteTestModel(scratch)).SerializeAsString();
  WriteFileOrDie(folder + "/model_file/every_encoding", input.Serialize());
  pb::ModelConfig config = SmallConfig();
  const struct {
    const char* name;
    Encoding encoding, output;
    bool biases, tied;
  } models[] = {{"q4", Encoding::kQ4, Encoding::kQ8, false, false},
                {"q4_0_tied", Encoding::kQ4_0, Encoding::kQ4_0, false, true},
                {"q8_biases", Encoding::kQ8, Encoding::kF16, true, false},
                {"f16", Encoding::kF16, Encoding::kF32, false, false}};
  size_t i = 0;
  for (const auto& model : models) {
    config.set_architecture(model.biases ? "qwen2" : "llama");
    config.set_tied_embeddings(model.tied);
    WriteRandomModel(scratch, config, model.encoding, model.output, 1);
    input.manifest = ManifestOf(ReadFileOrDie(scratch)).SerializeAsString();
    input.tokenizer = tokenizers[i].SerializeAsString();
    WriteFileOrDie(folder + "/model_file/" + model.name, input.Serialize());
    for (int what = 0; what < 4; ++what) {
      ModelFileInput derived = input;
      derived.flags = static_cast<uint8_t>(derived.flags | what << 6);
      WriteFileOrDie(absl::StrCat(folder, "/derived/", model.name, what), derived.Serialize());
    }
    WriteFileOrDie(folder + "/tokenizer/section" + std::to_string(i), "p" + input.tokenizer);
    ++i;
  }
  std::remove(scratch.c_str());

  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[0],"data_offsets":[24,24]},"c":{"dtype":"I64","shape":[],)"
      R"("data_offsets":[24,32]}}  )";
  WriteFileOrDie(folder + "/safetensors/three", std::string("\x20\0", 2) + header);
  // One float tensor [2, 3] of 6, transposed; and two of other types.
  WriteFileOrDie(folder + "/rebuild/transposed", std::string("\0\0\6\0\2\3\2\0\1\3", 10));
  WriteFileOrDie(folder + "/rebuild/two",
                 std::string("\1\1\7\1\1\3\0\2\2\xf0\0\0\0\0\0\0\1\0\0\1\2\0\1", 23));
  return 0;
}
