#include "format/sigbus_guard.h"

#include <unistd.h>

#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "format/unfinished.h"

namespace quire {
namespace {

// Composed beforehand: a signal handler may do little more than write.
char message[5000];
size_t message_bytes;

void Explain(int) {
  RemoveUnfinished();
  const ssize_t written = write(STDERR_FILENO, message, message_bytes);
  _exit(written < 0 ? 1 : 1);
}

}  // namespace

void ExplainSigbus(const std::string& path) {
  const std::string text =
      absl::StrCat("quire: ", path.substr(0, 4096),
                   ": a page of the file could not be read: it was cut short while in use, or "
                   "its disk failed (check with: quire verify)\n");
  std::memcpy(message, text.data(), text.size());
  message_bytes = text.size();
  struct sigaction action = {};
  action.sa_handler = Explain;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace quire
