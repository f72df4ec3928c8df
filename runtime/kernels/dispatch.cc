#include <stdlib.h>
#include <string.h>

#include "runtime/kernels/kernels.h"

namespace quire {

const KernelTable* const* AllKernels() {
  static const KernelTable* const kAll[] = {
      &ScalarKernels(),
#if defined(__x86_64__)
      &Avx2Kernels(),   &AvxVnniKernels(), &Avx512VnniKernels(), &AmxKernels(),
#elif defined(__aarch64__)
      &NeonKernels(),
      &NeonI8mmKernels(),
#endif
      nullptr,
  };
  return kAll;
}

const KernelTable* ChooseKernels() {
  const char* name = getenv("QUIRE_KERNELS");
  const KernelTable* best = nullptr;
  for (const KernelTable* const* k = AllKernels(); *k != nullptr; ++k) {
    if (name != nullptr && *name != '\0' && strcmp(name, (*k)->name) != 0) continue;
    if ((*k)->supported()) best = *k;
  }
  return best;
}

}  // namespace quire
