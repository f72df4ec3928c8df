// AArch64 with the dot product extension (Armv8.2).
#include <arm_neon.h>
#include <stdint.h>
#include <sys/auxv.h>

#include "runtime/kernels/kernels.h"

namespace quire {
namespace {

#include "runtime/kernels/neon.inc"

constexpr unsigned long kHasDotProduct = 1ul << 20;  // of AT_HWCAP

constexpr KernelTable kTable = {
    "neon",
    [] { return (getauxval(AT_HWCAP) & kHasDotProduct) != 0; },
    {MatmulFloat<F32>, MatmulFloat<F16>, MatmulFloat<BF16>, MatmulInteger<Q8, DotTile>,
     MatmulInteger<Q4, DotTile>, MatmulInteger<Q4_0, DotTile>, MatmulInteger<Q5, DotTile>,
     MatmulInteger<Q6, DotTile>, MatmulInteger<Q4_1, DotTile>},
    Quantize,
    RmsNorm,
    SiluMul,
    ToHalf,
    Attention,
    JoinParts,
};

}  // namespace

const KernelTable& NeonKernels() { return kTable; }

}  // namespace quire
