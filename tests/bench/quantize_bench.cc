// Encoding speed in weights per second, per kernel and encoding, on the shapes of real models; one
// core, input in memory. Each kernel's bytes are compared with the scalar definition's first.
//   bazel run -c opt //tests/bench:quantize_bench -- --benchmark_filter=avx512
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "format/packed_layout.h"
#include "format/thread_pool.h"
#include "quantize/encode.h"
#include "quantize/encode_tensor.h"
#include "quantize/kernels/kernels.h"

namespace quire {
namespace {

struct Shape {
  const char* name;
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {
    {"7B_w_gate", 11008, 4096}, {"7B_w_down", 4096, 11008}, {"135M_w_gate", 1536, 576}};

std::vector<float> Gaussian(int64_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(std::min<int64_t>(n, 1 << 20));
  for (float& v : values) v = normal(random);
  const int64_t period = static_cast<int64_t>(values.size());
  values.resize(n);
  for (int64_t i = period; i < n; ++i) values[i] = values[i - period];
  return values;
}

// One panel by one kernel, rows side by side in memory already.
struct Panel {
  Geometry geometry;
  std::vector<float> columns, weights, scratch;

  Panel(Encoding encoding, int64_t cols)
      : geometry{encoding, Layout::kPanels, kPanelRows, cols},
        columns(Gaussian(geometry.padded_cols() * kPanelRows)),
        weights(cols, 1.5f),
        scratch(geometry.groups() * kPanelRows) {
    for (int64_t i = cols * kPanelRows; i < geometry.padded_cols() * kPanelRows; ++i)
      columns[i] = 0;
  }
  void Encode(const EncodeKernels& kernels, bool weighted, uint8_t* out) {
    double error[kPanelRows] = {}, norm[kPanelRows] = {};
    kernels.encode[static_cast<int>(geometry.encoding) - 1](
        {columns.data(), geometry.cols, geometry.groups(), CodebookFor(geometry.encoding),
         weighted ? weights.data() : nullptr, scratch.data(), out, error, norm});
    benchmark::DoNotOptimize(error);
  }
};

void BenchPanel(benchmark::State& state, const EncodeKernels& kernels, Encoding encoding,
                bool weighted, Shape shape) {
  Panel panel(encoding, shape.cols);
  std::vector<uint8_t> expected(panel.geometry.unit_bytes()), actual(panel.geometry.unit_bytes());
  panel.Encode(ScalarEncodeKernels(), weighted, expected.data());
  panel.Encode(kernels, weighted, actual.data());
  if (actual != expected) return state.SkipWithError("differs from scalar");
  for (auto _ : state) panel.Encode(kernels, weighted, actual.data());
  state.SetItemsProcessed(state.iterations() * kPanelRows * shape.cols);
}

// A whole tensor from rows in memory to bytes, as convert and quantize do it.
void BenchTensor(benchmark::State& state, Encoding encoding, Layout layout, Shape shape,
                 int threads) {
  const Geometry geometry{encoding, layout, shape.rows, shape.cols};
  const std::vector<float> values = Gaussian(shape.rows * shape.cols);
  ThreadPool pool(threads);
  for (auto _ : state) {
    const auto result = EncodeTensor(
        geometry, CodebookFor(encoding), nullptr,
        [&](int64_t first_row, int64_t n_rows, float* out) {
          std::copy_n(values.data() + first_row * shape.cols, n_rows * shape.cols, out);
          return absl::OkStatus();
        },
        {pool, [](absl::Span<const uint8_t>) { return absl::OkStatus(); }, int64_t{256} << 20});
    if (!result.ok()) return state.SkipWithError(result.status().ToString().c_str());
  }
  state.SetItemsProcessed(state.iterations() * shape.rows * shape.cols);
}

void Register() {
  for (const EncodeKernels* const* kernels = AllEncodeKernels(); *kernels != nullptr; ++kernels) {
    if (!(*kernels)->supported()) continue;
    for (const EncodingInfo& info : kEncodings) {
      for (bool weighted : {false, true}) {
        if (weighted && !info.row_scale) continue;
        for (const Shape& shape : kShapes) {
          benchmark::RegisterBenchmark((std::string("panel/") + (*kernels)->name + "/" + info.name +
                                        (weighted ? "_weighted/" : "/") + shape.name)
                                           .c_str(),
                                       [=](benchmark::State& state) {
                                         BenchPanel(state, **kernels, info.encoding, weighted,
                                                    shape);
                                       });
        }
      }
    }
  }
  for (const EncodingInfo& info : kEncodings) {
    for (Layout layout : {Layout::kPanels, Layout::kRows}) {
      for (int threads = 1; threads <= DefaultThreads(); threads *= 2) {
        benchmark::RegisterBenchmark((std::string("tensor/") + info.name +
                                      (layout == Layout::kPanels ? "/panels/" : "/rows/") +
                                      kShapes[0].name + "/threads:" + std::to_string(threads))
                                         .c_str(),
                                     [=](benchmark::State& state) {
                                       BenchTensor(state, info.encoding, layout, kShapes[0],
                                                   threads);
                                     })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  quire::Register();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
