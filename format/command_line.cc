#include "format/command_line.h"

#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace quire {

Flag::Flag(const char* n, bool* t, const char* h)
    : name(n), help(h), kind(Kind::kBool), target(t) {}
Flag::Flag(const char* n, int64_t* t, const char* h, Range r)
    : name(n), help(h), kind(Kind::kInt), target(t), range(r) {}
Flag::Flag(const char* n, double* t, const char* h, Range r)
    : name(n), help(h), kind(Kind::kDouble), target(t), range(r) {}
Flag::Flag(const char* n, std::string* t, const char* h)
    : name(n), help(h), kind(Kind::kString), target(t) {}
Flag::Flag(const char* n, ByteSize* t, const char* h, Range r)
    : name(n), help(h), kind(Kind::kBytes), target(t), range(r) {}
Flag::Flag(const char* n, std::vector<std::string>* t, const char* h)
    : name(n), help(h), kind(Kind::kStrings), target(t) {}

namespace {

struct Unit {
  const char* suffix;
  double bytes;
};
constexpr Unit kUnits[] = {
    {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
    {"KB", 1e3},     {"MB", 1e6},        {"GB", 1e9},           {"TB", 1e12},
    {"K", 1024.0},   {"M", 1048576.0},   {"G", 1073741824.0},   {"T", 1099511627776.0},
    {"B", 1.0},      {"", 1.0}};

bool ParseByteSize(absl::string_view text, ByteSize* out) {
  for (const Unit& unit : kUnits) {
    double number;
    if (absl::EndsWithIgnoreCase(text, unit.suffix) &&
        absl::SimpleAtod(text.substr(0, text.size() - absl::string_view(unit.suffix).size()),
                         &number)) {
      if (!(number >= 0 && number * unit.bytes < 9e18)) return false;
      out->bytes = static_cast<int64_t>(number * unit.bytes);
      return true;
    }
  }
  return false;
}

const char* ValueName(Flag::Kind kind) {
  switch (kind) {
    case Flag::Kind::kBool:
      return "";
    case Flag::Kind::kInt:
    case Flag::Kind::kDouble:
      return " N";
    case Flag::Kind::kBytes:
      return " SIZE";
    default:
      return " VALUE";
  }
}

std::string DefaultValue(const Flag& flag) {
  switch (flag.kind) {
    case Flag::Kind::kInt:
      return absl::StrCat(*static_cast<int64_t*>(flag.target));
    case Flag::Kind::kDouble:
      return absl::StrCat(*static_cast<double*>(flag.target));
    case Flag::Kind::kString:
      return *static_cast<std::string*>(flag.target);
    case Flag::Kind::kBytes: {
      const int64_t bytes = static_cast<ByteSize*>(flag.target)->bytes;
      return bytes % 1048576 == 0 && bytes > 0 ? absl::StrCat(bytes / 1048576, "MiB")
                                               : absl::StrCat(bytes);
    }
    default:
      return "";
  }
}

void PrintHelp(const Verb& verb, absl::Span<const Flag> flags) {
  std::cout << "quire " << verb.name << ": " << verb.sentence << "\n\n  " << verb.example
            << "\n\nusage: quire " << verb.name << " " << verb.arguments << " [flags]\n";
  for (const Flag& flag : flags) {
    if (flag.help == nullptr) continue;
    const std::string value = DefaultValue(flag);
    const std::string shown =
        value.empty() || value == "0" ? "" : absl::StrCat(" (default ", value, ")");
    std::cout << absl::StreamFormat("  %-24s %s%s\n", absl::StrCat(flag.name, ValueName(flag.kind)),
                                    flag.help, shown);
  }
}

// "0 or more", "1 to 1024".
std::string RangeText(const Flag& flag) {
  const auto shown = [&](int64_t n) {
    const bool whole = flag.kind == Flag::Kind::kBytes && n != 0 && n % 1048576 == 0;
    return whole ? absl::StrCat(n / 1048576, "MiB") : absl::StrCat(n);
  };
  if (flag.range.max == Range().max) return absl::StrCat(shown(flag.range.min), " or more");
  return absl::StrCat(shown(flag.range.min), " to ", shown(flag.range.max));
}

// The error, or "" where `text` was stored.
std::string SetFlag(const Flag& flag, const std::string& text) {
  bool ok = true;
  const char* wanted = "";
  switch (flag.kind) {
    case Flag::Kind::kBool:
      *static_cast<bool*>(flag.target) = true;
      break;
    case Flag::Kind::kInt:
      ok = absl::SimpleAtoi(text, static_cast<int64_t*>(flag.target));
      wanted = "a whole number";
      break;
    case Flag::Kind::kDouble:
      ok = absl::SimpleAtod(text, static_cast<double*>(flag.target));
      wanted = "a number";
      break;
    case Flag::Kind::kBytes:
      ok = ParseByteSize(text, static_cast<ByteSize*>(flag.target));
      wanted = "a size such as 512MiB, 2GB or 4096";
      break;
    case Flag::Kind::kString:
      *static_cast<std::string*>(flag.target) = text;
      break;
    case Flag::Kind::kStrings:
      static_cast<std::vector<std::string>*>(flag.target)->push_back(text);
      break;
  }
  if (!ok) return absl::StrCat(flag.name, ": \"", text, "\" is not ", wanted);
  // Written so that a NaN is in no range but the widest.
  const auto in_range = [&](auto n) {
    return (flag.range.min == Range().min || n >= flag.range.min) &&
           (flag.range.max == Range().max || n <= flag.range.max);
  };
  const bool allowed =
      flag.kind == Flag::Kind::kInt      ? in_range(*static_cast<int64_t*>(flag.target))
      : flag.kind == Flag::Kind::kBytes  ? in_range(static_cast<ByteSize*>(flag.target)->bytes)
      : flag.kind == Flag::Kind::kDouble ? in_range(*static_cast<double*>(flag.target))
                                         : true;
  return allowed ? "" : absl::StrCat(flag.name, " is ", text, ", wanted ", RangeText(flag));
}

}  // namespace

bool ParseCommandLine(const Verb& verb, absl::Span<const Flag> flags, absl::Span<char* const> args,
                      std::vector<std::string>* positional, int* exit_code) {
  const auto usage_error = [&](const std::string& message) {
    *exit_code = UsageError(verb, message);
    return false;
  };
  bool only_positional = false;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string arg = args[i];
    if (only_positional || arg.size() < 2 || arg[0] != '-') {
      positional->push_back(arg);
      continue;
    }
    if (arg == "--") {
      only_positional = true;
      continue;
    }
    if (arg == "--help" || arg == "-h") {
      PrintHelp(verb, flags);
      *exit_code = kExitOk;
      return false;
    }
    const size_t equals = absl::StartsWith(arg, "--") ? arg.find('=') : std::string::npos;
    const std::string name = arg.substr(0, equals);
    const Flag* flag = nullptr;
    for (const Flag& candidate : flags) {
      if (name == candidate.name) flag = &candidate;
    }
    if (flag == nullptr) return usage_error(absl::StrCat("unknown flag ", name));
    std::string value;
    if (flag->kind == Flag::Kind::kBool) {
      if (equals != std::string::npos) return usage_error(absl::StrCat(name, " takes no value"));
    } else if (equals != std::string::npos) {
      value = arg.substr(equals + 1);
    } else if (i + 1 < args.size()) {
      value = args[++i];
    } else {
      return usage_error(absl::StrCat(name, " wants a value"));
    }
    const std::string error = SetFlag(*flag, value);
    if (!error.empty()) return usage_error(error);
  }
  const int n = static_cast<int>(positional->size());
  if (n < verb.min_arguments || n > verb.max_arguments) {
    return usage_error(
        absl::StrCat("wants ", verb.arguments, ", got ", n, n == 1 ? " argument" : " arguments"));
  }
  return true;
}

namespace {

// One line, whatever a file's names contain.
std::string OneLine(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"\n", " "}, {"\r", " "}, {"\x1b", "?"}});
}

}  // namespace

int UsageError(const Verb& verb, absl::string_view message) {
  std::cerr << "quire " << verb.name << ": " << OneLine(message) << " (see quire " << verb.name
            << " --help)\n";
  return kExitUsage;
}

int Report(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  std::cerr << "quire: " << OneLine(status.message()) << "\n";
  return kExitFailure;
}

std::string HumanBytes(int64_t bytes) {
  if (bytes >= 1000000000) return absl::StrFormat("%.2f GB", bytes / 1e9);
  if (bytes >= 1000000) return absl::StrFormat("%.1f MB", bytes / 1e6);
  if (bytes >= 1000) return absl::StrFormat("%.1f kB", bytes / 1e3);
  return absl::StrCat(bytes, " B");
}

int64_t MonotonicNanoseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

Progress::Progress(std::string what, int64_t total_bytes)
    : what_(std::move(what)),
      total_(total_bytes),
      start_ns_(MonotonicNanoseconds()),
      enabled_(isatty(2)) {}

Progress::~Progress() {
  if (enabled_ && last_ns_ != 0) std::cerr << "\r\x1b[K" << std::flush;
}

void Progress::Update(int64_t done_bytes) {
  if (!enabled_) return;
  const int64_t now = MonotonicNanoseconds();
  if (now - last_ns_ < 100000000) return;
  last_ns_ = now;
  const double seconds = (now - start_ns_) * 1e-9;
  const double rate = done_bytes / seconds;
  std::cerr << "\r\x1b[K"
            << absl::StreamFormat("%s %3.0f%%  %s/s  %.0f s left", what_,
                                  100.0 * done_bytes / std::max<int64_t>(1, total_),
                                  HumanBytes(static_cast<int64_t>(rate)),
                                  (total_ - done_bytes) / std::max(rate, 1.0))
            << std::flush;
}

}  // namespace quire
