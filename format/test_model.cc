#include "format/test_model.h"

#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstring>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>

#include "format/manifest_check.h"
#include "format/tokenizer.pb.h"
#include "format/writer.h"

namespace quire {
namespace {

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "test model: " << status << "\n";
  abort();
}

// Codebooks of any 16 and any 32 values.
void Add(pb::Manifest* manifest, const char* name, std::vector<uint64_t> shape, Encoding encoding,
         Layout layout) {
  int8_t codebook[kMaxCodebookSize];
  const int size = Info(encoding).codebook_size;
  for (int i = 0; i < size; ++i)
    codebook[i] = static_cast<int8_t>((i - size / 2) * (256 / size) + 8);
  pb::TensorEntry* entry = manifest->add_tensors();
  entry->set_name(name);
  for (const uint64_t d : shape) entry->add_shape(d);
  entry->set_layout(static_cast<pb::LayoutCode>(layout));
  SetEncoding(encoding, codebook, manifest, entry);
}

}  // namespace

pb::Manifest TestManifest() {
  pb::Manifest manifest;
  pb::ModelConfig* config = manifest.mutable_config();
  config->set_architecture("llama");
  config->set_n_layers(1);
  config->set_n_heads(2);
  config->set_n_kv_heads(1);
  config->set_head_dim(8);
  config->set_hidden_dim(16);
  config->set_ffn_dim(24);
  config->set_vocab_size(5);
  config->set_context_tokens(64);
  config->set_norm_eps(1e-5f);
  config->set_rope_theta(10000);
  manifest.set_scheme("test");
  manifest.mutable_source()->set_converter("quire test");
  Add(&manifest, "embedding", {5, 16}, Encoding::kQ8, Layout::kRows);
  Add(&manifest, "layers.0.attn_norm", {16}, Encoding::kF32, Layout::kRows);
  Add(&manifest, "layers.0.wq", {16, 16}, Encoding::kQ4, Layout::kPanels);
  Add(&manifest, "layers.0.wk", {8, 16}, Encoding::kQ4_0, Layout::kPanels);
  Add(&manifest, "layers.0.wv", {8, 16}, Encoding::kQ4_1, Layout::kPanels);
  Add(&manifest, "layers.0.wo", {16, 16}, Encoding::kF16, Layout::kPanels);
  Add(&manifest, "layers.0.ffn_norm", {16}, Encoding::kF32, Layout::kRows);
  Add(&manifest, "layers.0.w_gate", {24, 16}, Encoding::kBF16, Layout::kPanels);
  Add(&manifest, "layers.0.w_up", {24, 16}, Encoding::kF32, Layout::kPanels);
  Add(&manifest, "layers.0.w_down", {16, 24}, Encoding::kQ5, Layout::kPanels);
  Add(&manifest, "norm", {16}, Encoding::kF32, Layout::kRows);
  Add(&manifest, "output", {5, 16}, Encoding::kQ6, Layout::kPanels);
  return manifest;
}

std::vector<uint8_t> TestTensorBytes(const pb::TensorEntry& entry, uint32_t seed) {
  std::vector<uint8_t> bytes(GeometryOf(entry).bytes());
  std::mt19937 random(seed);
  // Below 0x3c in every byte: finite whether read as f32, f16 or bf16.
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 0x3c);
  return bytes;
}

std::string WriteTestModel(const std::string& path) {
  pb::Tokenizer tokenizer;
  tokenizer.set_chat_template("a template");
  auto writer = FileWriter::Create(path, TestManifest(), tokenizer.SerializeAsString(), true);
  Check(writer.status());
  uint32_t seed = 1;
  for (const pb::TensorEntry& entry : (*writer)->manifest().tensors()) {
    Check((*writer)->Append(TestTensorBytes(entry, seed++)));
  }
  Check((*writer)->Finish());
  return ReadFileOrDie(path);
}

pb::Manifest ManifestOf(const std::string& file) {
  Header header;
  Check(Header::Parse("test", reinterpret_cast<const uint8_t*>(file.data()), file.size(), &header));
  pb::Manifest manifest;
  if (!manifest.ParseFromString(file.substr(kHeaderBytes, header.manifest_bytes))) abort();
  return manifest;
}

std::string WithManifest(const std::string& file, const std::string& manifest_bytes) {
  std::string out = file;
  Header header;
  header.manifest_bytes = static_cast<int64_t>(manifest_bytes.size());
  header.manifest_xxh3 = XXH3_64bits(manifest_bytes.data(), manifest_bytes.size());
  header.file_bytes = static_cast<int64_t>(file.size());
  header.Serialize(reinterpret_cast<uint8_t*>(out.data()));
  out.replace(kHeaderBytes, manifest_bytes.size(), manifest_bytes);
  return out;
}

std::string ReadFileOrDie(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) abort();
  return text.str();
}

void WriteFileOrDie(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  if (!out) abort();
}

}  // namespace quire
