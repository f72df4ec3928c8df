#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "format/command_line.h"
#include "runtime/footprint/report.h"

namespace quire {
namespace {

constexpr char kStyle[] = R"(
:root { --ink: #1d2433; --soft: #5d6778; --line: #d9dee7; --paper: #ffffff; --own: #c8553d;
        --scratch: #e09f3e; --stream: #b5651d; --heap: #8f5d5d; --program: #8a94a6; --file: #2f6f9f; --none: #eceff4;
        --touch: #3a9d6e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf1; --soft: #9aa5b6; --line: #39414f; --paper: #161a21; --none: #272d38;
          --file: #5aa2d6; --own: #e07a5f; }
}
body { margin: 0 auto; max-width: 960px; padding: 24px; background: var(--paper);
       color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 36px 0 4px; }
p { margin: 6px 0; } .soft, figcaption, small { color: var(--soft); }
figure { margin: 12px 0; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 10px;
         margin: 16px 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
.card b { display: block; font-size: 22px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line);
         vertical-align: top; } td.n, th.n { text-align: right; white-space: nowrap; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 14px; }
dt { font-weight: 600; margin-top: 8px; } dd { margin: 0; }
)";

constexpr int kWidth = 900;       // of every figure, in its own units
constexpr int kLabelWidth = 130;  // left of the rows of the maps

std::string Escape(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string Percent(double fraction) { return absl::StrFormat("%.1f%%", 100 * fraction); }

double Ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

void Rect(std::string* svg, double x, double y, double w, double h, const char* color,
          const std::string& title = "") {
  absl::StrAppendFormat(svg, "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='var(--%s)'",
                        x, y, w, h, color);
  absl::StrAppend(svg, title.empty() ? "/>" : "><title>" + Escape(title) + "</title></rect>", "\n");
}

void Text(std::string* svg, double x, double y, const char* anchor, const std::string& text,
          bool soft = false) {
  absl::StrAppendFormat(svg, "<text x='%.1f' y='%.1f' text-anchor='%s'%s>%s</text>\n", x, y, anchor,
                        soft ? " class='soft'" : "", Escape(text));
}

std::string Figure(double height, const std::string& label, const std::string& svg,
                   const std::string& caption) {
  return absl::StrFormat(
      "<figure><svg viewBox='0 0 %d %.0f' role='img' aria-label='%s'>\n%s</svg>\n"
      "<figcaption>%s</figcaption></figure>\n",
      kWidth, height, Escape(label), svg, caption);
}

std::string Key(const char* color, const char* text) {
  return absl::StrCat("<span class='key' style='background:var(--", color, ")'></span>", text);
}

std::string Cards(const Footprint& f) {
  const Ledger& l = f.last().ledger;
  std::string out = "<div class='cards'>\n";
  const auto card = [&](const std::string& bytes, const char* what) {
    absl::StrAppend(&out, "<div class='card'><b>", bytes, "</b>", what, "</div>\n");
  };
  card(HumanBytes(l.anonymous), "memory of its own");
  card(HumanBytes(l.weights), "of the file in use by this process, in place");
  if (f.last().cached.has_value())
    card(HumanBytes(*f.last().cached), "of the file in the system's page cache");
  if (f.touched_per_token.has_value())
    card(HumanBytes(*f.touched_per_token), "of weights read for each token");
  if (!f.residence.whole())
    card(HumanBytes(f.residence.streamed_bytes), "of them from disk: memory is too short");
  card(HumanBytes(l.pss), "its fair share (PSS), shared pages divided among their users");
  return out + "</div>\n";
}

// What RSS is made of, as one bar.
std::string RssBar(const Ledger& l) {
  const struct {
    const char* color;
    const char* what;
    int64_t bytes;
  } parts[] = {{"own", "KV cache", l.kv_cache},
               {"scratch", "scratch", l.scratch},
               {"stream", "buffers for streamed weights", l.stream},
               {"heap", "heap and stacks", l.other_anonymous},
               {"program", "program and libraries", l.other_files},
               {"file", "weights, in the page cache", l.weights}};
  std::string svg, keys;
  double x = 0;
  for (const auto& part : parts) {
    if (part.bytes == 0) continue;
    const double w = kWidth * Ratio(part.bytes, l.rss);
    Rect(&svg, x, 4, w, 34, part.color, absl::StrCat(part.what, ": ", HumanBytes(part.bytes)));
    x += w;
    absl::StrAppend(&keys, Key(part.color, part.what), " ", HumanBytes(part.bytes));
  }
  return Figure(44, "RSS by kind", svg, keys);
}

std::string TimelineFigure(const Footprint& f) {
  if (f.timeline.empty()) return "";
  constexpr double kLeft = 70, kTop = 26, kHeight = 190, kRight = 14;
  const double w = kWidth - kLeft - kRight;
  double end_ms = 1, top = 1;
  for (const TimelineSample& s : f.timeline) {
    end_ms = std::max(end_ms, s.ms);
    top = std::max(top, static_cast<double>(s.anonymous + s.file));
  }
  const auto x = [&](double ms) { return kLeft + w * ms / end_ms; };
  const auto y = [&](double bytes) { return kTop + kHeight * (1 - bytes / top); };
  std::string files, own, svg;
  for (const TimelineSample& s : f.timeline) {
    absl::StrAppendFormat(&files, "%.1f,%.1f ", x(s.ms), y(s.anonymous + s.file));
    absl::StrAppendFormat(&own, "%.1f,%.1f ", x(s.ms), y(s.anonymous));
  }
  const auto area = [&](const std::string& points, const char* color) {
    absl::StrAppendFormat(&svg, "<polygon points='%.1f,%.1f %s%.1f,%.1f' fill='var(--%s)'/>\n",
                          x(f.timeline.front().ms), y(0), points, x(f.timeline.back().ms), y(0),
                          color);
  };
  area(files, "file");
  area(own, "own");
  for (int i = 0; i <= 2; ++i) {
    Text(&svg, kLeft - 6, y(top * i / 2) + 4, "end", HumanBytes(static_cast<int64_t>(top * i / 2)),
         true);
  }
  double free_from = 0;  // labels that would overlap go one line up
  for (const Stage& stage : f.stages) {
    const double at = x(stage.ms);
    absl::StrAppendFormat(&svg,
                          "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='var(--soft)' "
                          "stroke-dasharray='3 3'/>\n",
                          at, kTop, at, kTop + kHeight);
    const bool last = &stage == &f.stages.back();
    Text(&svg, at, at < free_from ? 10 : 22, last ? "end" : "start", stage.name, true);
    free_from = std::max(free_from, at + 8.0 * stage.name.size());
  }
  Text(&svg, kLeft, kTop + kHeight + 16, "start", "0", true);
  Text(&svg, kLeft + w, kTop + kHeight + 16, "end", absl::StrFormat("%.0f ms", end_ms), true);
  return Figure(kTop + kHeight + 22, "memory over time", svg,
                Key("own", "its own memory") + Key("file", "files it maps (weights, program)"));
}

// Consecutive tensors of one layer, or outside of the layers.
struct MapRow {
  std::string label;
  size_t first, last;  // tensors [first, last)
};

std::vector<MapRow> MapRows(const std::vector<TensorFootprint>& tensors) {
  std::vector<MapRow> rows;
  std::string previous = "none";
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string& name = tensors[i].name;
    const bool layer = absl::StartsWith(name, "layers.");
    const std::string group = layer ? name.substr(0, name.find('.', 7)) : "";
    if (group != previous) {
      rows.push_back({layer ? "layer " + group.substr(7) : name, i, i});
    } else if (!layer) {
      absl::StrAppend(&rows.back().label, ", ", name);
    }
    rows.back().last = i + 1;
    previous = group;
  }
  return rows;
}

std::string Map(const Footprint& f) {
  constexpr double kRow = 17, kSizeWidth = 80, kCells = 120;
  const double width = kWidth - kLabelWidth - kSizeWidth;
  std::string svg;
  double y = 2;
  for (const MapRow& row : MapRows(f.tensors)) {
    int64_t total = 0;
    for (size_t i = row.first; i < row.last; ++i) total += f.tensors[i].bytes;
    Text(&svg, kLabelWidth - 8, y + 11, "end", row.label.substr(0, 20), true);
    double x = kLabelWidth;
    for (size_t i = row.first; i < row.last; ++i) {
      const TensorFootprint& tensor = f.tensors[i];
      const double w = width * Ratio(tensor.bytes, total);
      const std::string title = absl::StrCat(
          tensor.name, ": ", HumanBytes(tensor.bytes),
          tensor.resident.has_value()
              ? absl::StrCat(", ", Percent(Ratio(*tensor.resident, tensor.bytes)), " in memory")
              : "",
          tensor.touched.has_value()
              ? absl::StrCat(", ", Percent(Ratio(*tensor.touched, tensor.bytes)),
                             " read for a token")
              : "");
      Rect(&svg, x, y, std::max(0.5, w - 1), 9, "none", title);
      // Cells side by side that are alike become one rectangle.
      const int cells = std::max(1, static_cast<int>(kCells * Ratio(tensor.bytes, total)));
      int begun = 0, level = -1;
      for (int c = 0; c <= cells && f.residency.has_value(); ++c) {
        int now = -1;
        if (c < cells) {
          const int64_t begin = tensor.offset + tensor.bytes * c / cells;
          const int64_t end = tensor.offset + tensor.bytes * (c + 1) / cells;
          now = static_cast<int>(
              std::lround(10 * Ratio(f.residency->BytesIn(begin, end), end - begin)));
        }
        if (now == level) continue;
        if (level > 0) {
          absl::StrAppendFormat(
              &svg,
              "<rect x='%.1f' y='%.1f' width='%.1f' height='9' fill='var(--file)' opacity='%.1f' "
              "pointer-events='none'/>\n",
              x + w * begun / cells, y, std::max(0.5, w * (c - begun) / cells - (c == cells)),
              level / 10.0);
        }
        begun = c;
        level = now;
      }
      if (tensor.touched.has_value()) {
        Rect(&svg, x, y + 10, std::max(0.0, (w - 1) * Ratio(*tensor.touched, tensor.bytes)), 3,
             "touch");
      }
      x += w;
    }
    Text(&svg, kWidth, y + 11, "end", HumanBytes(total), true);
    y += kRow;
  }
  return Figure(y + 2, "map of the file", svg,
                Key("file", "in the page cache") + Key("none", "on disk only") +
                    Key("touch", "share of the tensor that one token reads") +
                    ". One row a layer, one block a tensor in file order; each row is drawn as "
                    "wide as the others. Hover for names.");
}

std::string TouchedFigure(const Footprint& f) {
  if (!f.touched_per_token.has_value()) return "<p>" + Escape(f.touched_note) + "</p>\n";
  const std::vector<KindFootprint> kinds = ByKind(f.tensors);
  int64_t widest = 1;
  for (const KindFootprint& kind : kinds) widest = std::max(widest, kind.bytes);
  constexpr double kFiguresWidth = 220;
  const double width = kWidth - kLabelWidth - kFiguresWidth;
  std::string svg;
  double y = 2;
  for (const KindFootprint& kind : kinds) {
    Text(&svg, kLabelWidth - 8, y + 13, "end", kind.kind.substr(0, 20));
    Rect(&svg, kLabelWidth, y, std::max(1.0, width * Ratio(kind.bytes, widest)), 16, "none");
    Rect(&svg, kLabelWidth, y, width * Ratio(kind.touched, widest), 16, "touch");
    Text(&svg, kWidth, y + 13, "end",
         absl::StrCat(HumanBytes(kind.touched), " of ", HumanBytes(kind.bytes), " (",
                      Percent(Ratio(kind.touched, kind.bytes)), ")"),
         true);
    y += 22;
  }
  return Figure(y, "bytes read for one token", svg,
                Key("touch", "read for one token") + Key("none", "stored"));
}

std::string StagesTable(const Footprint& f) {
  std::string out =
      "<table><tr><th>moment</th><th class='n'>ms</th><th class='n'>its own memory</th><th "
      "class='n'>weights mapped</th><th class='n'>RSS</th><th class='n'>file in page "
      "cache</th></tr>\n";
  for (const Stage& s : f.stages) {
    absl::StrAppendFormat(&out,
                          "<tr><td>%s</td><td class='n'>%.1f</td><td class='n'>%s</td><td "
                          "class='n'>%s</td><td class='n'>%s</td><td class='n'>%s</td></tr>\n",
                          Escape(s.name), s.ms, HumanBytes(s.ledger.anonymous),
                          HumanBytes(s.ledger.weights), HumanBytes(s.ledger.rss),
                          s.cached.has_value() ? HumanBytes(*s.cached) : "unknown");
  }
  return out + "</table>\n";
}

std::string ToolsTable(const Footprint& f) {
  std::string out =
      "<table><tr><th>tool</th><th>column</th><th class='n'>shows</th><th>which is</th><th>what "
      "it means</th></tr>\n";
  for (const ToolFigure& t : ToolFigures(f.last().ledger, f.machine, f.cgroup)) {
    absl::StrAppendFormat(
        &out, "<tr><td>%s</td><td>%s</td><td class='n'>%s</td><td>%s</td><td>%s</td></tr>\n",
        Escape(t.tool), Escape(t.column), HumanBytes(t.bytes), Escape(t.formula),
        Escape(t.meaning));
  }
  return out + "</table>\n";
}

constexpr char kWords[] = R"(<h2>Words</h2>
<dl>
<dt>page</dt><dd>The unit in which memory is handed out, 4 KiB on most machines.</dd>
<dt>page cache</dt><dd>The copies of files that the system keeps in memory because there is room.
It drops them when something else needs the room, and reads them again when they are needed.</dd>
<dt>mapped</dt><dd>A process has given a file addresses. Reading such an address reads the page
cache itself; nothing is copied. Until a page is first used, it costs the process nothing.</dd>
<dt>own memory (anonymous)</dt><dd>What the process has written: nothing on disk can stand in for
it, so it is used up until the process ends.</dd>
<dt>RSS</dt><dd>All memory that a process can reach without waiting: its own, and the pages of
mapped files it has used. Added up over processes it counts shared pages many times.</dd>
<dt>PSS</dt><dd>RSS with each shared page divided by the number of processes that map it.</dd>
</dl>
)";

}  // namespace

std::string HtmlReport(const Footprint& f) {
  const Ledger& l = f.last().ledger;
  const std::string name = Escape(f.path.substr(f.path.rfind('/') + 1));
  std::string notes;
  if (!f.residency_note.empty()) notes = "<p>" + Escape(f.residency_note) + "</p>\n";
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>\n<meta name='viewport' "
      "content='width=device-width, initial-scale=1'>\n<title>",
      name, ": memory</title>\n<style>", kStyle, "</style></head>\n<body>\n<h1>", name,
      "</h1>\n<p class='soft'>", HumanBytes(f.file_bytes), " in ", f.tensors.size(), " tensors, ",
      Escape(f.architecture), ", ", f.n_layers, " layers. ", f.tokens,
      f.tokens == 1 ? " token" : " tokens", ", context ", f.ctx, ", ", f.threads,
      f.threads == 1 ? " thread, " : " threads, ", Escape(f.kernels),
      " kernels.</p>\n<p>Running this "
      "model took <b>",
      HumanBytes(l.anonymous), "</b> of memory of its own. Tools that report ", HumanBytes(l.rss),
      " also count ", HumanBytes(l.weights + l.other_files),
      " of files, which the process reads where the system keeps them anyway: one copy, whoever "
      "else uses it, and given back when room is needed.</p>\n",
      Cards(f), "<h2>What the process holds</h2>\n", RssBar(l),
      "<h2>Over time</h2>\n<p>Opening "
      "reads no weight. The first token reaches them all; from then on nothing grows but the "
      "tokens' keys and values.</p>\n",
      TimelineFigure(f), StagesTable(f), "<h2>The file in memory</h2>\n", notes, Map(f),
      "<h2>What one token reads</h2>\n", TouchedFigure(f),
      "<h2>What tools show at this moment</h2>\n", ToolsTable(f), kWords, "</body></html>\n");
}

}  // namespace quire
