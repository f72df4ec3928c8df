// Flags of one verb: `quire VERB ARG... --flag value`. A table per verb gives parsing, help and
// errors.
#ifndef QUIRE_FORMAT_COMMAND_LINE_H_
#define QUIRE_FORMAT_COMMAND_LINE_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

inline constexpr int kExitOk = 0, kExitFailure = 1, kExitUsage = 2;

// A size in bytes: "512MiB", "2GB", "4096".
struct ByteSize {
  int64_t bytes = 0;
};

// What a number may be, both ends included. Another is a usage error.
struct Range {
  int64_t min = std::numeric_limits<int64_t>::min(), max = std::numeric_limits<int64_t>::max();
};
inline constexpr Range kThreadsRange = {1, 1024};
// Below 8 MiB the program itself and the stacks of its threads would not fit.
inline constexpr Range kMemoryBudgetRange = {8 << 20, std::numeric_limits<int64_t>::max()};

// One flag. `-n 5`, `--ctx 512`, `--ctx=512`, `--json`. The target's type decides how the value is
// parsed; its value before parsing is the default, which need not be in the range. Targets must
// outlive Parse. Help null: not listed.
struct Flag {
  Flag(const char* name, bool* target, const char* help);  // given or not; takes no value
  Flag(const char* name, int64_t* target, const char* help, Range range = {});
  Flag(const char* name, double* target, const char* help, Range range = {});
  Flag(const char* name, std::string* target, const char* help);
  Flag(const char* name, ByteSize* target, const char* help, Range range = {});
  Flag(const char* name, std::vector<std::string>* target, const char* help);  // may be repeated
  const char* name;  // with its dashes: "--ctx", "-p"
  const char* help;
  enum class Kind { kBool, kInt, kDouble, kString, kBytes, kStrings } kind;
  void* target;
  Range range;
};

struct Verb {
  const char* name;       // "convert"
  const char* arguments;  // "SRC DST.quire"
  const char* sentence;   // what it does
  const char* example;    // a command that runs
  int min_arguments, max_arguments;
};

// Parses argv (after the verb). Returns true to go on, with the positional arguments in
// *positional; otherwise the process should exit with *exit_code: help was printed on stdout (0),
// or the usage error on stderr (2).
bool ParseCommandLine(const Verb& verb, absl::Span<const Flag> flags, absl::Span<char* const> args,
                      std::vector<std::string>* positional, int* exit_code);

// Prints "quire VERB: MESSAGE (see quire VERB --help)" on stderr and returns kExitUsage: for what
// was asked for wrongly, whatever the files hold.
int UsageError(const Verb& verb, absl::string_view message);

// Prints "quire: MESSAGE" as one line on stderr and returns kExitFailure (kExitOk for an OK
// status).
int Report(const absl::Status& status);

// "3.83 GB", "512 MiB" style for people.
std::string HumanBytes(int64_t bytes);

// Progress on stderr, where that is a terminal: "convert  45%  1.2 GB/s  12 s left". Silent
// elsewhere.
class Progress {
 public:
  Progress(std::string what, int64_t total_bytes);
  ~Progress();  // clears the line
  void Update(int64_t done_bytes);

 private:
  std::string what_;
  int64_t total_, start_ns_, last_ns_ = 0;
  bool enabled_;
};

int64_t MonotonicNanoseconds();

}  // namespace quire

#endif  // QUIRE_FORMAT_COMMAND_LINE_H_
