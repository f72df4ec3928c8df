// A model's configuration as config.json.
#ifndef QUIRE_CONVERT_EXPORT_HUGGINGFACE_CONFIG_EXPORT_H_
#define QUIRE_CONVERT_EXPORT_HUGGINGFACE_CONFIG_EXPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "format/manifest.pb.h"
#include "format/tokenizer.pb.h"
#include "nlohmann/json.hpp"

namespace quire {

// What ParseHuggingFaceConfig reads, and the special ids. dtype: torch's name. Unimplemented for an
// architecture or a combination that transformers has no class for.
absl::StatusOr<nlohmann::ordered_json> ExportHuggingFaceConfig(const pb::ModelConfig& config,
                                                               const pb::Tokenizer* tokenizer,
                                                               const std::string& dtype,
                                                               bool has_biases);

}  // namespace quire

#endif  // QUIRE_CONVERT_EXPORT_HUGGINGFACE_CONFIG_EXPORT_H_
