// A tiny, valid .quire file for tests: every encoding and layout, a tokenizer, arbitrary but fixed
// bytes.
#ifndef QUIRE_FORMAT_TEST_MODEL_H_
#define QUIRE_FORMAT_TEST_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "format/header.h"
#include "format/manifest.pb.h"

namespace quire {

// The manifest of the tiny file, without offsets and checksums.
pb::Manifest TestManifest();

// Codes of tensor `index`, byte for byte: finite scales, anything else pseudo-random.
std::vector<uint8_t> TestTensorBytes(const pb::TensorEntry& entry, uint32_t seed);

// Writes the tiny file to `path` (replacing it) by FileWriter. Returns its bytes.
std::string WriteTestModel(const std::string& path);

// The parts of a file in memory, and a file of them with header and manifest checksums made right
// again: what a structure-aware attacker writes.
pb::Manifest ManifestOf(const std::string& file);
std::string WithManifest(const std::string& file, const std::string& manifest_bytes);

std::string ReadFileOrDie(const std::string& path);
void WriteFileOrDie(const std::string& path, const std::string& bytes);

}  // namespace quire

#endif  // QUIRE_FORMAT_TEST_MODEL_H_
