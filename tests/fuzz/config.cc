// config.json and params.json.
#include "convert/hyperparameters.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quire;
  const auto result =
      ParseConfig(absl::string_view(reinterpret_cast<const char*>(data), size), "config.json");
  if (!result.ok()) {
    const absl::string_view message = result.status().message();
    FuzzCheck(!message.empty() && message.size() < 2000, "a refusal says why, in a line");
    FuzzCheck(message.find('\n') == absl::string_view::npos, "a message is one line");
    return 0;
  }
  const pb::ModelConfig& config = result->config;
  FuzzCheck(config.n_layers() > 0 && config.n_heads() > 0 && config.n_kv_heads() > 0 &&
                config.hidden_dim() > 0 && config.context_tokens() > 0,
            "dimensions are positive");
  FuzzCheck(config.n_heads() % config.n_kv_heads() == 0, "heads come in groups");
  FuzzCheck(config.head_dim() % 2 == 0 && config.head_dim() > 0, "rotary pairs");
  FuzzCheck(int64_t{config.n_heads()} * config.head_dim() <= 1 << 24, "heads are bounded");
  FuzzCheck(config.norm_eps() > 0 && config.rope_theta() > 1, "constants are in range");
  return 0;
}
