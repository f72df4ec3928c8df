// AVX-512 with VNNI.
#include <immintrin.h>
#include <stdint.h>

#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

#include "runtime/kernels/zmm.inc"

template <typename Code>
void MatmulInteger(const MatmulArgs& a) {
  Multiply(a, IntegerProduct<Code>{a, Code(a.codebook)});
}

constexpr KernelTable kTable = {
    "avx512vnni",
    SupportsZmm,
    {MatmulFloat<F32>, MatmulFloat<F16>, MatmulFloat<BF16>, MatmulInteger<Q8>, MatmulInteger<Q4>,
     MatmulInteger<Q4_0>, MatmulInteger<Q5>, MatmulInteger<Q6>, MatmulInteger<Q4_1>},
    Quantize,
    RmsNorm,
    SiluMul,
    ToHalf,
    Attention,
    JoinParts,
};

}  // namespace

const KernelTable& Avx512VnniKernels() { return kTable; }

}  // namespace quire
