// Decoding at growing contexts, as a fraction of the read bandwidth measured in turns with it: a
// token reads the weights and, for each position before it, keys and values.
//   bazel run -c opt //tests/bench:context_bench MODEL [rounds [contexts ...]]
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <vector>

#include "format/command_line.h"
#include "runtime/roof.h"
#include "runtime/sampler.h"
#include "runtime/session.h"

namespace quire {
namespace {

constexpr int kTokens = 32;      // decoded at each context
constexpr int kEveryTokens = 4;  // bandwidth is measured
constexpr int64_t kStretchBytes = int64_t{256} << 20;

double Seconds() { return 1e-9 * static_cast<double>(MonotonicNanoseconds()); }

struct Times {
  double decode = 0, decode_bytes = 0, read = 0, read_bytes = 0;
  int64_t tokens = 0;
};

class Bench {
 public:
  explicit Bench(Session& session) : session_(session), transformer_(session.transformer()) {
    const pb::ModelConfig& c = session.model().config();
    position_bytes_ = 4 * int64_t{c.n_layers()} * c.n_kv_heads() * c.head_dim();
    const MappedFile& mapping = session.model().file().mapping();
    const int64_t bytes = std::min(mapping.size(), kStretchBytes);
    stretch_ = {mapping.data() + mapping.size() - bytes, static_cast<size_t>(bytes)};
  }

  // Goes on to a context of `tokens`.
  absl::Status Prefill(int64_t tokens) {
    std::vector<int32_t> ids(tokens - transformer_.position());
    for (int32_t& id : ids) id = RandomId();
    return transformer_.Forward(ids);
  }

  // Generates tokens and forgets them.
  absl::Status Decode(Times* times) {
    const int64_t context = transformer_.position();
    int32_t id = RandomId();
    for (int i = 0; i < kTokens; ++i) {
      const double start = Seconds();
      if (absl::Status status = transformer_.Forward({id}); !status.ok()) return status;
      id = sampler_.Sample(transformer_.Logits(), {});
      times->decode += Seconds() - start;
      times->decode_bytes += static_cast<double>(session_.model().decode_bytes() +
                                                 transformer_.position() * position_bytes_);
      ++times->tokens;
      if (i % kEveryTokens != 0) continue;
      times->read +=
          static_cast<double>(stretch_.size()) / ReadBandwidth(stretch_, session_.pool());
      times->read_bytes += static_cast<double>(stretch_.size());
    }
    transformer_.Rewind(context);
    return absl::OkStatus();
  }

  void Restart() { transformer_.Rewind(0); }

 private:
  int32_t RandomId() {
    return static_cast<int32_t>(random_.Next() % session_.model().config().vocab_size());
  }

  Session& session_;
  Transformer& transformer_;
  Sampler sampler_{SamplerOptions{}};
  Random random_{1};
  int64_t position_bytes_;
  absl::Span<const uint8_t> stretch_;
};

absl::Status Run(const char* path, int rounds, const std::vector<int64_t>& contexts) {
  SessionOptions options;
  options.ctx = contexts.back() + kTokens;
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Open(path, options);
  if (!session.ok()) return session.status();
  Bench bench(**session);
  std::vector<Times> times(contexts.size());
  Times unused;
  absl::Status status = bench.Prefill(1);
  if (status.ok()) status = bench.Decode(&unused);  // brings everything into memory
  for (int round = 0; round < rounds; ++round) {
    bench.Restart();
    for (size_t i = 0; i < contexts.size(); ++i) {
      if (status.ok()) status = bench.Prefill(contexts[i]);
      if (status.ok()) status = bench.Decode(&times[i]);
    }
  }
  if (!status.ok()) return status;
  std::printf("%s kernels, %d threads\n context  tokens/s   GB/s  of bandwidth  of the first\n",
              (*session)->kernels().name, (*session)->pool().size());
  double first = 0;
  for (size_t i = 0; i < contexts.size(); ++i) {
    const Times& t = times[i];
    const double rate = t.decode_bytes / t.decode, fraction = rate / (t.read_bytes / t.read);
    if (i == 0) first = fraction;
    std::printf("%8lld %9.1f %6.1f %12.0f%% %12.0f%%\n", static_cast<long long>(contexts[i]),
                static_cast<double>(t.tokens) / t.decode, rate * 1e-9, 100 * fraction,
                100 * fraction / first);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: context_bench MODEL [rounds [contexts ...]]\n");
    return 2;
  }
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 3;
  std::vector<int64_t> contexts;
  for (int i = 3; i < argc; ++i) contexts.push_back(std::atoll(argv[i]));
  if (contexts.empty()) contexts = {0, 512, 1500, 2048, 4096};
  const absl::Status status = quire::Run(argv[1], rounds, contexts);
  if (!status.ok()) std::cerr << "context_bench: " << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
