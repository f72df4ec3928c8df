#include "quantize/kernels/kernels.h"
#include "quantize/row_encoder.h"

namespace quire {
namespace {

template <Encoding kEncoding>
void EncodeRows(const PanelArgs& args) {
  const Geometry geometry{kEncoding, Layout::kPanels, kPanelRows, args.cols};
  for (int row = 0; row < kPanelRows; ++row) {
    EncodeRow(geometry, {args.columns + row, kPanelRows, args.codebook, args.column_weights}, row,
              args.out, args.squared_error + row, args.squared_norm + row);
  }
}

constexpr EncodeKernels kScalar = {
    "scalar",
    [] { return true; },
    {EncodeRows<Encoding::kF32>, EncodeRows<Encoding::kF16>, EncodeRows<Encoding::kBF16>,
     EncodeRows<Encoding::kQ8>, EncodeRows<Encoding::kQ4>, EncodeRows<Encoding::kQ4_0>,
     EncodeRows<Encoding::kQ5>, EncodeRows<Encoding::kQ6>, EncodeRows<Encoding::kQ4_1>},
};

}  // namespace

const EncodeKernels& ScalarEncodeKernels() { return kScalar; }

const EncodeKernels* const* AllEncodeKernels() {
  static const EncodeKernels* const kAll[] = {
      &ScalarEncodeKernels(),
#if defined(__x86_64__)
      &Avx2EncodeKernels(),
      &Avx512EncodeKernels(),
#endif
      nullptr,
  };
  return kAll;
}

const EncodeKernels& ChooseEncodeKernels() {
  static const EncodeKernels* const kBest = [] {
    const EncodeKernels* best = nullptr;
    for (const EncodeKernels* const* k = AllEncodeKernels(); *k != nullptr; ++k) {
      if ((*k)->supported()) best = *k;
    }
    return best;
  }();
  return *kBest;
}

}  // namespace quire
