// A mapped file that is cut short, or whose disk fails, while it is in use.
#ifndef QUIRE_FORMAT_SIGBUS_GUARD_H_
#define QUIRE_FORMAT_SIGBUS_GUARD_H_

#include <string>

namespace quire {

// From now on a SIGBUS, which the kernel raises where a page of a mapping cannot be read, prints
// one line that names `path` and ends the process with status 1, without a core. Called once,
// before the first weight is read.
void ExplainSigbus(const std::string& path);

}  // namespace quire

#endif  // QUIRE_FORMAT_SIGBUS_GUARD_H_
