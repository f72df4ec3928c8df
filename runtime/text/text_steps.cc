#include "runtime/text/text_steps.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "runtime/text/utf8.h"

namespace quire {
namespace {

constexpr int kMaxSteps = 32;
constexpr size_t kMaxGrowth = 16, kMaxExtraBytes = 1 << 20;

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

struct Range {
  size_t begin, end;
  bool match;
};

// The ranges of which one part consists, joined as `behavior` says.
std::vector<Range> JoinRanges(const std::vector<Range>& ranges, pb::TextStep::Behavior behavior) {
  std::vector<Range> out;
  switch (behavior) {
    case pb::TextStep::REMOVED:
      for (const Range& r : ranges) {
        if (!r.match) out.push_back(r);
      }
      break;
    case pb::TextStep::CONTIGUOUS:
      for (const Range& r : ranges) {
        if (!out.empty() && out.back().match == r.match) {
          out.back().end = r.end;
        } else {
          out.push_back(r);
        }
      }
      break;
    case pb::TextStep::MERGED_WITH_PREVIOUS:
      // Of matches in a row only the first joins what is before.
      for (size_t i = 0; i < ranges.size(); ++i) {
        if (ranges[i].match && i > 0 && !ranges[i - 1].match) {
          out.back().end = ranges[i].end;
        } else {
          out.push_back(ranges[i]);
        }
      }
      break;
    case pb::TextStep::MERGED_WITH_NEXT:
      // Of matches in a row only the last joins what follows.
      for (size_t i = 0; i < ranges.size(); ++i) {
        if (!ranges[i].match && i > 0 && ranges[i - 1].match) {
          out.back().end = ranges[i].end;
        } else {
          out.push_back(ranges[i]);
        }
      }
      break;
    default:  // ISOLATED
      return ranges;
  }
  return out;
}

absl::Status Split(const pb::TextStep& spec, const Regex& pattern, const TextPart& part,
                   MatchBudget* budget, std::vector<TextPart>* out) {
  std::vector<Range> ranges;
  size_t done = 0;
  absl::Status status = pattern.ForEachMatch(part.text, budget, [&](size_t begin, size_t end) {
    if (begin > done) ranges.push_back({done, begin, spec.invert()});
    ranges.push_back({begin, end, !spec.invert()});
    done = end;
  });
  if (!status.ok()) return status;
  if (done < part.text.size()) ranges.push_back({done, part.text.size(), spec.invert()});
  for (const Range& r : JoinRanges(ranges, spec.behavior())) {
    if (r.begin < r.end)
      out->push_back(
          {part.text.substr(r.begin, r.end - r.begin), part.begins_text && r.begin == 0});
  }
  return absl::OkStatus();
}

absl::Status Replace(const pb::TextStep& spec, const Regex& pattern, absl::string_view text,
                     MatchBudget* budget, std::string* out) {
  size_t done = 0;
  absl::Status status = pattern.ForEachMatch(text, budget, [&](size_t begin, size_t end) {
    out->append(text.data() + done, begin - done);
    out->append(spec.text());
    done = end;
  });
  out->append(text.data() + done, text.size() - done);
  return status;
}

}  // namespace

std::string NormalizeUnicode(absl::string_view text, pb::TextStep::Kind form) {
  const bool compose = form == pb::TextStep::NFC || form == pb::TextStep::NFKC;
  const bool compatible = form == pb::TextStep::NFKC || form == pb::TextStep::NFKD;
  const auto decompose_option =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = NextChar(text);
    utf8proc_int32_t parts[32];
    int boundclass = 0;
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.code), parts, 32,
                                           decompose_option, &boundclass);
    // An unassigned character is refused by the library (n < 0) and stands for itself.
    if (n >= 1 && n <= 32) {
      codes.insert(codes.end(), parts, parts + n);
    } else {
      codes.push_back(static_cast<utf8proc_int32_t>(c.code));
    }
    text.remove_prefix(c.length);
  }
  // Canonical order (the library's own sorting is quadratic in the length of a run of marks).
  const auto combining_class = [](utf8proc_int32_t code) {
    return utf8proc_get_property(code)->combining_class;
  };
  for (auto it = codes.begin(); it != codes.end();) {
    if (combining_class(*it) == 0) {
      ++it;
      continue;
    }
    const auto end = std::find_if(
        it, codes.end(), [&](utf8proc_int32_t code) { return combining_class(code) == 0; });
    std::stable_sort(it, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    it = end;
  }
  auto size = static_cast<utf8proc_ssize_t>(codes.size());
  if (compose) {
    size = utf8proc_normalize_utf32(
        codes.data(), size, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  }
  std::string out;
  out.reserve(codes.size());
  for (utf8proc_ssize_t i = 0; i < size; ++i) AppendUtf8(static_cast<char32_t>(codes[i]), &out);
  return out;
}

absl::Status TextSteps::Init(const google::protobuf::RepeatedPtrField<pb::TextStep>& steps,
                             const char* what) {
  if (steps.size() > kMaxSteps) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "tokenizer: %d steps of %s, the limit is %d", steps.size(), what, kMaxSteps));
  }
  for (const pb::TextStep& spec : steps) {
    Step step{&spec, {}};
    switch (spec.kind()) {
      case pb::TextStep::NFC:
      case pb::TextStep::NFD:
      case pb::TextStep::NFKC:
      case pb::TextStep::NFKD:
      case pb::TextStep::PREPEND:
        break;
      case pb::TextStep::REPLACE:
      case pb::TextStep::SPLIT: {
        absl::StatusOr<Regex> pattern = Regex::Create(spec.pattern());
        if (!pattern.ok()) {
          return absl::Status(pattern.status().code(), absl::StrFormat("tokenizer: %s: %s", what,
                                                                       pattern.status().message()));
        }
        step.pattern.push_back(*std::move(pattern));
        break;
      }
      default:
        return absl::UnimplementedError(absl::StrFormat("tokenizer: %s: step of unknown kind %d",
                                                        what, static_cast<int>(spec.kind())));
    }
    if (spec.kind() == pb::TextStep::SPLIT && !pb::TextStep::Behavior_IsValid(spec.behavior())) {
      return absl::UnimplementedError(absl::StrFormat("tokenizer: %s: split of unknown behavior %d",
                                                      what, static_cast<int>(spec.behavior())));
    }
    steps_.push_back(std::move(step));
  }
  return absl::OkStatus();
}

absl::Status TextSteps::Apply(std::vector<TextPart>* parts, std::deque<std::string>* storage,
                              MatchBudget* budget) const {
  size_t bytes = 0;
  for (const TextPart& part : *parts) bytes += part.text.size();
  const size_t limit = bytes * kMaxGrowth + kMaxExtraBytes;
  std::vector<TextPart> out;
  for (const Step& step : steps_) {
    const pb::TextStep& spec = *step.spec;
    out.clear();
    bytes = 0;
    for (const TextPart& part : *parts) {
      if (part.text.empty()) continue;
      if (spec.kind() == pb::TextStep::SPLIT) {
        if (absl::Status status = Split(spec, step.pattern[0], part, budget, &out); !status.ok())
          return status;
        continue;
      }
      std::string text;
      switch (spec.kind()) {
        case pb::TextStep::REPLACE:
          if (absl::Status status = Replace(spec, step.pattern[0], part.text, budget, &text);
              !status.ok())
            return status;
          break;
        case pb::TextStep::PREPEND:
          if ((spec.unless_present() && absl::StartsWith(part.text, spec.text())) ||
              (spec.first_only() && !part.begins_text)) {
            out.push_back(part);
            continue;
          }
          text.reserve(spec.text().size() + part.text.size());
          text.append(spec.text());
          text.append(part.text.data(), part.text.size());
          break;
        default:  // a normalization form
          if (IsAscii(part.text)) {
            out.push_back(part);
            continue;
          }
          text = NormalizeUnicode(part.text, spec.kind());
      }
      bytes += text.size();
      if (bytes > limit)
        return absl::ResourceExhaustedError(
            "tokenizer: its normalizer lets a text grow without measure");
      storage->push_back(std::move(text));
      out.push_back({storage->back(), part.begins_text});
    }
    parts->swap(out);
  }
  return absl::OkStatus();
}

}  // namespace quire
