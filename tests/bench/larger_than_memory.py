#!/usr/bin/env python3
"""Decoding a model that is larger than the memory it may use: Quire beside Quire as a plain mapping beside llama.cpp, alternating, each
in the same memory cgroup's limit, each with the file dropped from the page cache before.

  larger_than_memory.py run MODEL.quire MODEL.gguf --limit 2500000000 --results results.json   # adds one round
  larger_than_memory.py table results.json                                                      # Markdown
  larger_than_memory.py plot results.json plot.svg

Needs the right to make memory cgroups (root), QUIRE = path of the binary, and llama-cpp-python (tests/requirements.txt does not have it).
Without MODEL.gguf ("-") llama.cpp is left out."""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "footprint"))
import observe

QUIRE = os.environ.get("QUIRE", str(HERE.parents[1] / "bazel-bin" / "quire"))
WHOLE = 1 << 50  # --resident: more than any file
SIDES = {"quire": "Quire", "mapped": "Quire, plain mapping (`--resident 1TiB`)", "llama": "llama.cpp (mmap, no repacking)"}
COLORS = {"quire": "#c8553d", "mapped": "#2f6f9f", "llama": "#8a94a6"}


def quire(path, limit, tokens, *flags):
    observe.drop_from_page_cache(path)
    done = subprocess.run([QUIRE, "bench", path, "--memory-limit", str(limit), "--cold", "--repetitions", "1", "--prompt-tokens", "6",
                           "--tokens", str(tokens), "--json", *flags], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def llama(path, limit, tokens):
    observe.drop_from_page_cache(path)
    cgroup = observe.MemoryCgroup(limit)
    with cgroup:
        child = subprocess.Popen([sys.executable, HERE / "llama_cpp_worker.py", path, "--prompt-tokens", "6", "--tokens", str(tokens), "--prefill-tokens", "0",
                                  "--no-repack"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=cgroup.join)
        line = child.stdout.readline()
        child.communicate()
        return json.loads(line) if line else None


def run(args):
    """One round: every side once."""
    size = os.path.getsize(args.model)
    ours = quire(args.model, args.limit, args.tokens)
    record = {"limit": args.limit, "file": size, "weights": ours["decode_bytes_per_token"], "quire": ours["decode_tokens_per_second"],
              "streamed": ours["weights_streamed_bytes"], "disk": ours["disk_read_bytes_per_second"]}
    few = max(3, args.tokens // 8)  # the others take their time
    record["mapped"] = quire(args.model, args.limit, few, "--resident", str(WHOLE))["decode_tokens_per_second"]
    if args.gguf != "-":
        figures = llama(args.gguf, args.limit, few)
        record["llama"] = figures and figures["decode_tokens_per_second"]
        record["gguf"] = os.path.getsize(args.gguf)
    results = json.loads(args.results.read_text()) if args.results.exists() else []
    args.results.write_text(json.dumps(results + [record], indent=1))
    print(json.dumps(record))


def medians(path):
    """By limit, largest first: medians over the rounds; with the disk's share."""
    rounds = json.loads(path.read_text())
    points = []
    for limit in sorted({r["limit"] for r in rounds}, reverse=True):
        here = [r for r in rounds if r["limit"] == limit]
        point = {key: statistics.median(values) for key in here[0]
                 if (values := [r[key] for r in here if r.get(key) is not None])}
        point["rounds"] = len(here)
        if point.get("disk") and point["streamed"]:
            # What the disk would allow if all of the limit held weights, and nothing else took memory.
            shares = [r["quire"] * (r["weights"] - r["limit"]) / r["disk"] for r in here if r["disk"] and r["weights"] > r["limit"]]
            point["of_ideal"] = statistics.median(shares) if shares else None
            point["of_disk"] = statistics.median(r["quire"] * r["streamed"] / r["disk"] for r in here)
        points.append(point)
    return points


def table(args):
    print("| limit | of the file | Quire, tokens/s | plain mapping | llama.cpp | ratio to llama.cpp | read for a token | of the disk's rate | of the ideal |")
    print("|---|---|---|---|---|---|---|---|---|")
    for p in medians(args.results):
        percent = lambda key: f"{100 * p[key]:.0f}%" if p.get(key) else ""
        ratio = f"{p['quire'] / p['llama']:.1f}x" if p.get("llama") else ""
        print(f"| {p['limit'] / 1e9:.2f} GB | {100 * p['limit'] / p['file']:.0f}% | **{p['quire']:.2f}** | {p['mapped']:.2f} "
              f"| {format(p['llama'], '.2f') if p.get('llama') else 'not measured'} | {ratio} | {p['streamed'] / 1e9:.2f} GB | {percent('of_disk')} | {percent('of_ideal')} |")


def plot(args):
    points = medians(args.results)
    left, top, width, height = 64, 40, 620, 300
    most = max(max(p.get(side) or 0 for side in SIDES) for p in points)
    least = min(min(p[side] for side in SIDES if p.get(side)) for p in points)
    decades = [10.0**e for e in range(-3, 4) if least / 3.2 <= 10.0**e <= most * 3.2]
    low, high = math.log10(least / 1.3), math.log10(most * 1.3)
    shares = [100 * p["limit"] / p["file"] for p in points]
    x = lambda share: left + width * (share - min(shares)) / (max(shares) - min(shares))
    y = lambda speed: top + height * (high - math.log10(speed)) / (high - low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {top + height + 78}" font-family="sans-serif" font-size="12">',
           "<style>text{fill:#1d2433}.grid{stroke:#d9dee7}@media(prefers-color-scheme:dark){text{fill:#e8ebf1}.grid{stroke:#39414f}}</style>",
           f'<text x="{left}" y="20" font-size="14">Decoded tokens per second as memory shrinks, a 7B model of {points[0]["file"] / 1e9:.2f} GB</text>']
    for speed in [m * d for d in decades for m in (1, 2, 5)]:
        if low <= math.log10(speed) <= high:
            out.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y(speed):.1f}" y2="{y(speed):.1f}"/>'
                       f'<text x="{left - 8}" y="{y(speed) + 4:.1f}" text-anchor="end">{speed:g}</text>')
    labelled = [share for i, share in enumerate(shares) if i == 0 or shares[i - 1] - share > 4]
    for share in labelled:
        out.append(f'<text x="{x(share):.1f}" y="{top + height + 18}" text-anchor="middle">{share:.0f}%</text>')
    out.append(f'<text x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">memory limit, of the file (page cache included)</text>')
    for i, (side, name) in enumerate(SIDES.items()):
        line = [(x(100 * p["limit"] / p["file"]), y(p[side])) for p in points if p.get(side)]
        if not line:
            continue
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[side]}" stroke-width="2"/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{COLORS[side]}"/>' for px, py in line]
        at = left + i * 215
        out.append(f'<rect x="{at}" y="{top + height + 54}" width="12" height="12" fill="{COLORS[side]}"/>'
                   f'<text x="{at + 18}" y="{top + height + 65}">{name.replace(" (`--resident 1TiB`)", "")}</text>')
    args.svg.write_text("\n".join(out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("run")
    verb.add_argument("model")
    verb.add_argument("gguf")
    verb.add_argument("--limit", type=int, required=True)
    verb.add_argument("--tokens", type=int, default=12)
    verb.add_argument("--results", type=pathlib.Path, required=True)
    verb.set_defaults(do=run)
    verb = verbs.add_parser("table")
    verb.add_argument("results", type=pathlib.Path)
    verb.set_defaults(do=table)
    verb = verbs.add_parser("plot")
    verb.add_argument("results", type=pathlib.Path)
    verb.add_argument("svg", type=pathlib.Path)
    verb.set_defaults(do=plot)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
