// Matrix products on the shapes of real models, as fractions of the roof measured in turns with
// them: decode of read bandwidth, prefill of the int8 (for float encodings f32) peak. Each product
// is checked against scalar once, first.
//   bazel run -c opt //tests/bench:kernels_bench [threads [encoding]]      QUIRE_KERNELS picks the
//   table
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "format/command_line.h"
#include "format/packed_layout.h"
#include "runtime/kernels/kernels.h"
#include "runtime/roof.h"

namespace quire {
namespace {

struct Shape {
  const char* name;
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {
    {"7B wq", 4096, 4096},      {"7B w_gate", 11008, 4096}, {"7B w_down", 4096, 11008},
    {"135M w_gate", 1536, 576}, {"135M w_down", 576, 1536}, {"135M output", 49152, 576},
};
constexpr int64_t kPrefillTokens = 512;
constexpr int kDecodeRepeats = 100, kPrefillRepeats = 25;
constexpr int64_t kWeightBytes = int64_t{1} << 29;  // of copies of one matrix: far beyond any cache
constexpr int64_t kSliceBytes = int64_t{1} << 24;   // that one measurement reads, at least

double Seconds() { return 1e-9 * static_cast<double>(MonotonicNanoseconds()); }

// Random bytes are weights, once the top exponent bit of everything that may be a float is clear:
// |value| < 2.
void MakeFinite(const AnonymousMemory& weights) {
  for (int64_t i = 1; i < weights.bytes(); i += 2) weights.data()[i] &= 0xbf;
}

class Bench {
 public:
  Bench(const KernelTable& table, Encoding encoding, ThreadPool& pool,
        const AnonymousMemory& weights)
      : table_(table), encoding_(encoding), pool_(pool), weights_(weights) {
    for (int i = 0; i < kMaxCodebookSize; ++i) codebook_[i] = static_cast<int8_t>(-127 + 8 * i);
  }

  // Prints one line. False where the result is wrong.
  bool Run(const Shape& shape) {
    geometry_ = {encoding_, Layout::kPanels, shape.rows, shape.cols};
    std::printf("  %-12s %6lld x %-6lld", shape.name, static_cast<long long>(shape.rows),
                static_cast<long long>(shape.cols));
    for (int64_t n_tokens : {int64_t{1}, int64_t{4}, kPrefillTokens}) {
      Prepare(n_tokens);
      if (!Verify()) return false;
      n_tokens < kPrefillTokens ? Decode() : Prefill();
    }
    std::printf("\n");
    return true;
  }

 private:
  void Prepare(int64_t n_tokens) {
    const int64_t groups = geometry_.groups();
    x_.resize(n_tokens * geometry_.padded_cols());
    uint32_t state = 1;
    for (float& v : x_) {
      state = state * 1664525 + 1013904223;
      v = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
    }
    q_.assign(groups * n_tokens * kGroupColumns, 0);
    scale_.assign(groups * n_tokens, 0);
    bias_.assign(groups * n_tokens, 0);
    y_.assign(n_tokens * geometry_.units() * kPanelRows, 0);
    args_ = {};
    args_.panel_bytes = geometry_.unit_bytes();
    args_.groups = groups;
    args_.codebook = codebook_;
    args_.xq = {q_.data(), scale_.data(), bias_.data()};
    args_.x = x_.data();
    args_.x_stride = geometry_.padded_cols();
    args_.n_tokens = n_tokens;
    args_.y_stride = geometry_.units() * kPanelRows;
    table_.quantize(x_.data(), args_.x_stride, n_tokens, 0, n_tokens, groups, args_.xq);
  }

  // Multiplies by copy `copy` of the matrix, panels split over the threads.
  void Multiply(int64_t copy, int thread) {
    const int64_t n = geometry_.units();
    const int64_t begin = n * thread / pool_.size(), end = n * (thread + 1) / pool_.size();
    MatmulArgs args = args_;
    args.panels = weights_.data() + copy * geometry_.bytes() + begin * geometry_.unit_bytes();
    args.n_panels = end - begin;
    args.y = y_.data() + begin * kPanelRows;
    table_.matmul[static_cast<int>(encoding_) - 1](args);
  }

  bool Verify() {
    pool_.Run([&](int thread) { Multiply(0, thread); });
    MatmulArgs args = args_;
    std::vector<float> want(args.n_tokens * kPanelRows);
    args.y = want.data();
    args.y_stride = kPanelRows;
    args.n_panels = 1;
    const int64_t panel = geometry_.units() - 1;
    args.panels = weights_.data() + panel * geometry_.unit_bytes();
    ScalarKernels().matmul[static_cast<int>(encoding_) - 1](args);
    for (int64_t t = 0; t < args.n_tokens; ++t) {
      if (std::memcmp(&want[t * kPanelRows], &y_[t * args_.y_stride + panel * kPanelRows],
                      kPanelRows * 4) != 0) {
        std::printf(" WRONG at token %lld\n", static_cast<long long>(t));
        return false;
      }
    }
    return true;
  }

  void Decode() {
    const int64_t copies = weights_.bytes() / geometry_.bytes();
    const int64_t at_once = std::max<int64_t>(1, kSliceBytes / geometry_.bytes());
    double best = 0, roof = 0;
    for (int i = 0; i < kDecodeRepeats; ++i) {
      const int64_t first = i * at_once % std::max<int64_t>(1, copies - at_once);
      const double start = Seconds();
      for (int64_t copy = first; copy < first + at_once; ++copy) {
        pool_.Run([&](int thread) { Multiply(copy, thread); });
      }
      best = std::max(best, static_cast<double>(at_once * geometry_.bytes()) / (Seconds() - start));
      const int64_t slice =
          (i + kDecodeRepeats / 2) * kSliceBytes % (weights_.bytes() - kSliceBytes);
      roof = std::max(
          roof, ReadBandwidth({weights_.data() + slice, static_cast<size_t>(kSliceBytes)}, pool_));
    }
    std::printf(" | %lld: %5.1f GB/s %3.0f%%", static_cast<long long>(args_.n_tokens), best * 1e-9,
                100 * best / roof);
    std::fflush(stdout);
  }

  void Prefill() {
    const Peak* peak = BestPeak(Info(encoding_).scale_bytes > 0 ? Int8Peaks() : F32Peaks());
    const double ops = 2.0 * static_cast<double>(geometry_.units() * kPanelRows *
                                                 geometry_.padded_cols() * args_.n_tokens);
    double best = 0, roof = 0;
    for (int i = 0; i < kPrefillRepeats; ++i) {
      const double start = Seconds();
      pool_.Run([&](int thread) { Multiply(i % 2, thread); });
      best = std::max(best, ops / (Seconds() - start));
      roof = std::max(roof, MeasurePeak(*peak, pool_));
    }
    std::printf(" | %lld: %5.3f Tops/s %3.0f%%", static_cast<long long>(args_.n_tokens),
                best * 1e-12, 100 * best / roof);
  }

  const KernelTable& table_;
  const Encoding encoding_;
  ThreadPool& pool_;
  const AnonymousMemory& weights_;
  Geometry geometry_;
  int8_t codebook_[kMaxCodebookSize];
  std::vector<float> x_, scale_, y_;
  std::vector<int8_t> q_;
  std::vector<int32_t> bias_;
  MatmulArgs args_;
};

int Main(int n_threads, const char* only) {
  const KernelTable* table = ChooseKernels();
  if (table == nullptr) {
    std::fprintf(stderr, "QUIRE_KERNELS names no table that this CPU can run\n");
    return 1;
  }
  ThreadPool pool(n_threads);
  const absl::StatusOr<AnonymousMemory> weights = RoofMemory(kWeightBytes, pool);
  if (!weights.ok()) {
    std::fprintf(stderr, "%s\n", weights.status().ToString().c_str());
    return 1;
  }
  MakeFinite(*weights);
  std::printf(
      "%s, %d threads; tokens: rate and part of the roof (1 and 4: of read bandwidth; %lld: of "
      "peak)\n",
      table->name, n_threads, static_cast<long long>(kPrefillTokens));
  for (const EncodingInfo& info : kEncodings) {
    if (only != nullptr && std::strcmp(only, info.name) != 0) continue;
    std::printf("%s\n", info.name);
    Bench bench(*table, info.encoding, pool, *weights);
    for (const Shape& shape : kShapes) {
      if (!bench.Run(shape)) return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  return quire::Main(argc > 1 ? std::atoi(argv[1]) : quire::DefaultThreads(),
                     argc > 2 ? argv[2] : nullptr);
}
