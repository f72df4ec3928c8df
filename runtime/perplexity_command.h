// `quire perplexity`.
#ifndef QUIRE_RUNTIME_PERPLEXITY_COMMAND_H_
#define QUIRE_RUNTIME_PERPLEXITY_COMMAND_H_

#include "absl/types/span.h"

namespace quire {

int PerplexityCommand(absl::Span<char* const> args);

}  // namespace quire

#endif  // QUIRE_RUNTIME_PERPLEXITY_COMMAND_H_
