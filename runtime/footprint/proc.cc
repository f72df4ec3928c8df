#include "runtime/footprint/proc.h"

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "format/kernel_text.h"

namespace quire {
namespace {

MappingCounts ParseCounts(absl::string_view text) {
  MappingCounts c;
  ParseKernelFields(text, {{"Rss", &c.rss},
                           {"Pss", &c.pss},
                           {"Shared_Clean", &c.shared_clean},
                           {"Shared_Dirty", &c.shared_dirty},
                           {"Private_Clean", &c.private_clean},
                           {"Private_Dirty", &c.private_dirty},
                           {"Referenced", &c.referenced},
                           {"Anonymous", &c.anonymous},
                           {"Swap", &c.swap},
                           {"FilePmdMapped", &c.huge_file_pages}});
  return c;
}

// "7f00-7f80 r--s 00001000 fe:00 260131      /a path": whether the line is one.
bool ParseHeader(absl::string_view line, SmapsEntry* entry) {
  std::vector<absl::string_view> fields;
  size_t at = 0;
  while (fields.size() < 5 && at < line.size()) {
    const size_t space = std::min(line.find(' ', at), line.size());
    fields.push_back(line.substr(at, space - at));
    at = std::min(line.find_first_not_of(' ', space), line.size());
  }
  if (fields.size() != 5) return false;
  const std::pair<absl::string_view, absl::string_view> range =
      absl::StrSplit(fields[0], absl::MaxSplits('-', 1));
  if (!absl::SimpleHexAtoi(range.first, &entry->begin) ||
      !absl::SimpleHexAtoi(range.second, &entry->end) ||
      !absl::SimpleHexAtoi(fields[2], &entry->offset) ||
      !absl::SimpleAtoi(fields[4], &entry->inode)) {
    return false;
  }
  entry->permissions = std::string(fields[1]);
  entry->device = std::string(fields[3]);
  entry->path = std::string(line.substr(at));
  return true;
}

}  // namespace

std::vector<SmapsEntry> ParseSmaps(absl::string_view text) {
  std::vector<SmapsEntry> entries;
  size_t counts_begin = 0, at = 0;
  const auto finish = [&](size_t end) {
    if (!entries.empty())
      entries.back().counts = ParseCounts(text.substr(counts_begin, end - counts_begin));
  };
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    SmapsEntry entry;
    // Headers begin with a lower-case hexadecimal number, all other lines with a capital.
    if (!absl::ascii_isupper(text[at]) && ParseHeader(text.substr(at, end - at), &entry)) {
      finish(at);
      entries.push_back(std::move(entry));
      counts_begin = end;
    }
    at = end + 1;
  }
  finish(text.size());
  return entries;
}

MappingCounts ParseSmapsRollup(absl::string_view text) { return ParseCounts(text); }

MappingCounts Sum(const std::vector<SmapsEntry>& entries) {
  MappingCounts sum;
  for (const SmapsEntry& entry : entries) {
    const MappingCounts& c = entry.counts;
    sum.rss += c.rss;
    sum.pss += c.pss;
    sum.shared_clean += c.shared_clean;
    sum.shared_dirty += c.shared_dirty;
    sum.private_clean += c.private_clean;
    sum.private_dirty += c.private_dirty;
    sum.referenced += c.referenced;
    sum.anonymous += c.anonymous;
    sum.swap += c.swap;
    sum.huge_file_pages += c.huge_file_pages;
  }
  return sum;
}

ProcIo ParseProcIo(absl::string_view text) {
  ProcIo io;
  ParseKernelFields(
      text,
      {{"rchar", &io.rchar}, {"read_bytes", &io.read_bytes}, {"write_bytes", &io.write_bytes}});
  return io;
}

absl::StatusOr<ProcStat> ParseProcStat(absl::string_view text) {
  // The command is in parentheses and may itself hold parentheses and spaces.
  const size_t open = text.find('('), close = text.rfind(')');
  if (open == absl::string_view::npos || close == absl::string_view::npos || close < open)
    return absl::InvalidArgumentError("/proc/PID/stat: no command in parentheses");
  ProcStat stat;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(text.substr(close + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  // Field 3, the state, is the first after the command.
  const auto number = [&](size_t field, int64_t* value) {
    return field - 3 < fields.size() && absl::SimpleAtoi(fields[field - 3], value);
  };
  int64_t pid;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text.substr(0, open)), &pid) || fields.empty() ||
      !number(10, &stat.minor_faults) || !number(12, &stat.major_faults) ||
      !number(14, &stat.user_ticks) || !number(15, &stat.system_ticks) ||
      !number(22, &stat.start_ticks) || !number(24, &stat.rss_pages)) {
    return absl::InvalidArgumentError(absl::StrCat("/proc/PID/stat: ", fields.size() + 2,
                                                   " fields, wanted numbers in 1, 10 to 24"));
  }
  stat.pid = static_cast<int>(pid);
  stat.command = std::string(text.substr(open + 1, close - open - 1));
  stat.state = fields[0][0];
  return stat;
}

MemInfo ParseMemInfo(absl::string_view text) {
  MemInfo m;
  ParseKernelFields(text, {{"MemTotal", &m.total},
                           {"MemFree", &m.free},
                           {"MemAvailable", &m.available},
                           {"Buffers", &m.buffers},
                           {"Cached", &m.cached},
                           {"SReclaimable", &m.reclaimable},
                           {"AnonPages", &m.anonymous},
                           {"Mapped", &m.mapped},
                           {"PageTables", &m.page_tables}});
  return m;
}

absl::StatusOr<Pressure> ParsePressure(absl::string_view text) {
  Pressure p;
  bool found = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const bool some = absl::ConsumePrefix(&line, "some ");
    if (!some && !absl::ConsumePrefix(&line, "full ")) continue;
    found |= some;
    for (absl::string_view pair : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
      const std::pair<absl::string_view, absl::string_view> field =
          absl::StrSplit(pair, absl::MaxSplits('=', 1));
      if (field.first == "avg10") {
        (void)absl::SimpleAtod(field.second, some ? &p.some_avg10 : &p.full_avg10);
      } else if (field.first == "avg60") {
        (void)absl::SimpleAtod(field.second, some ? &p.some_avg60 : &p.full_avg60);
      } else if (field.first == "total") {
        (void)absl::SimpleAtoi(field.second, some ? &p.some_total_us : &p.full_total_us);
      }
    }
  }
  if (!found) return absl::InvalidArgumentError("a pressure file without the line \"some\"");
  return p;
}

}  // namespace quire
