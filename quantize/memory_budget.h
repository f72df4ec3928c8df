// What --memory-budget allows.
#ifndef QUIRE_QUANTIZE_MEMORY_BUDGET_H_
#define QUIRE_QUANTIZE_MEMORY_BUDGET_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quire {

// OK where the budget is at least `needed` bytes; else ResourceExhausted, which says that `what`
// takes so many.
inline absl::Status CheckMemoryBudget(absl::string_view what, int64_t needed, int64_t budget) {
  if (needed <= budget) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      what, " takes ", needed, " bytes of memory, the budget is ", budget, " (--memory-budget)"));
}

}  // namespace quire

#endif  // QUIRE_QUANTIZE_MEMORY_BUDGET_H_
