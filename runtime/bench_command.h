// `quire bench`.
#ifndef QUIRE_RUNTIME_BENCH_COMMAND_H_
#define QUIRE_RUNTIME_BENCH_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int BenchCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_RUNTIME_BENCH_COMMAND_H_
