"""The table and the plot of compare_llama_cpp.py: medians over the rounds, with their ranges."""
import statistics

import bar_chart

GOALS = [  # what, of which samples, better is, wanted
    ("start to first token, warm", "first_token_ms", "quire-q4", None, "<=", 350, "ms"),
    ("... llama.cpp's default takes", "first_token_ms", "llama-q4_0", "quire-q4", ">=", 10, "x"),
    ("... and without repacking", "first_token_ms", "llama-q4_0-mapped", "quire-q4", ">=", 3.5, "x"),
    ("cold start to first token, beside a plain read of the file", "cold_share", "quire-q4", None, "<=", 1.1, "x"),
    ("decode, of the read bandwidth, measured in turns with it", "decode_share", "quire-q4", None, ">=", 0.9, ""),
    ("decode, beside llama.cpp Q4_0", "decode_tokens_per_second", "quire-q4", "llama-q4_0", ">=", 1.2, "x"),
    ("decode, beside llama.cpp Q4_K_M", "decode_tokens_per_second", "quire-q4", "llama-q4_k_m", ">=", 1.35, "x"),
    ("prefill, of the int8 peak of the same minute", "prefill_share", "quire-q4", None, ">=", 0.55, ""),
    ("prefill, beside llama.cpp Q4_0", "prefill_tokens_per_second", "quire-q4", "llama-q4_0", ">=", 2.3, "x"),
    ("anonymous memory, of the KV cache + 32 MiB", "own_share", "quire-q4", None, "<=", 1, ""),
    ("decode with AVX2 kernels, beside AVX-512's", "decode_tokens_per_second", "quire-avx2", "quire-q4", ">=", 0.9, "x"),
]


def derive(sample):
    """What follows from one sample: shares of the limits at that moment, the better of before and after."""
    limit = {key: max(sample["before"][key], sample["after"][key]) for key in sample["before"]}
    sample = dict(sample, read_limit=limit["read_bytes_per_second"], ops_limit=limit["ops_per_second"])
    if "decode_bytes_per_token" in sample:
        sample["decode_share"] = sample["decode_tokens_per_second"] * sample["decode_bytes_per_token"] / sample["memory_read_bytes_per_second"]
        if "prefill_tokens_per_second" in sample:
            sample["prefill_share"] = sample["prefill_tokens_per_second"] * sample["prefill_ops_per_token"] / limit["ops_per_second"]
        sample["own_share"] = sample["rss_anon_bytes"] / (sample["kv_cache_bytes"] + (32 << 20))
    if "cold_first_token_ms" in sample:
        sample["cold_share"] = sample["cold_first_token_ms"] / sample["plain_read_ms"]
    return sample


class Figures:
    def __init__(self, results):
        self.samples = [derive(sample) for sample in results["samples"]]

    def of(self, side, key):
        return [sample[key] for sample in self.samples if sample["side"] == side and key in sample]

    def median(self, side, key):
        values = self.of(side, key)
        return statistics.median(values) if values else None

    def cell(self, side, key, factor=1.0, digits=1):
        values = [value * factor for value in self.of(side, key)]
        if not values:
            return ""
        low, high, middle = min(values), max(values), statistics.median(values)
        text = f"{middle:.{digits}f}"
        return text if len(values) < 2 or f"{low:.{digits}f}" == f"{high:.{digits}f}" else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


ROWS = [
    ("start to ready, ms", "ready_ms", 1, 0), ("start to first token, warm, ms", "first_token_ms", 1, 0),
    ("start to first token, cold, ms", "cold_first_token_ms", 1, 0), ("... beside a plain read of the file", "cold_share", 1, 2),
    ("own (anonymous) memory, MB", "rss_anon_bytes", 1e-6, 0), ("mapped from files, MB", "rss_file_bytes", 1e-6, 0),
    ("decode, tokens/s", "decode_tokens_per_second", 1, 2), ("... of the read bandwidth, %", "decode_share", 100, 0),
    ("prefill, tokens/s", "prefill_tokens_per_second", 1, 1), ("... of the int8 peak, %", "prefill_share", 100, 0),
]


def goals(figures):
    lines = ["| goal | wanted | measured | |", "|---|---|---|---|"]
    for what, key, side, other, relation, wanted, unit in GOALS:
        value = figures.median(side, key)
        base = figures.median(other, key) if other else 1
        if value is None or base is None:
            continue
        ratio = value / base
        met = ratio <= wanted if relation == "<=" else ratio >= wanted
        show = lambda v: f"{v:.0f} ms" if unit == "ms" else f"{v:.2f}{unit}"  # noqa: E731
        lines.append(f"| {what} | {relation} {show(wanted)} | {show(ratio)} | {'met' if met else 'missed'} |")
    return lines


def write(args, sides, results):
    figures = Figures(results)
    shown = [name for name in sides if figures.of(name, "first_token_ms")]
    rounds = max(len(figures.of(name, "first_token_ms")) for name in shown)
    read = [sample["read_limit"] / 1e9 for sample in figures.samples]
    ops = [sample["ops_limit"] / 1e12 for sample in figures.samples]
    lines = [f"Medians of {rounds} rounds in turns (lowest to highest), {args.threads} threads; read bandwidth {min(read):.0f} to {max(read):.0f} GB/s, "
             f"int8 peak {min(ops):.2f} to {max(ops):.2f} Tops/s.", ""]
    lines += ["| | " + " | ".join(sides[name].label for name in shown) + " |", "|---|" + "---|" * len(shown)]
    sizes = [f"{(args.work / sides[name].file).stat().st_size / 1e9:.2f}" for name in shown]
    lines.append("| file, GB | " + " | ".join(sizes) + " |")
    for label, key, factor, digits in ROWS:
        cells = [figures.cell(name, key, factor, digits) for name in shown]
        if any(cells):
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", *goals(figures), ""]
    lines += [f"- {what}: {seconds:.0f} s" for what, seconds in results["made"].items()]

    def bars(key, factor=1.0):
        out = []
        for name in shown:
            values = [value * factor for value in figures.of(name, key)]
            if values:
                out.append((sides[name].label, "quire" if sides[name].is_quire else "llama.cpp", [statistics.median(values)], min(values), max(values)))
        return out

    memory = [(sides[name].label, "quire" if sides[name].is_quire else "llama.cpp",
               [figures.median(name, "rss_anon_bytes") / 1e9, figures.median(name, "rss_file_bytes") / 1e9], None, None) for name in shown]
    bar_chart.write_svg(args.report, "Quire and llama.cpp on one machine, in turns", [
        ("Start to first token, warm (6-token prompt)", bars("first_token_ms", 1e-3), "s"),
        ("Decode", bars("decode_tokens_per_second"), "tokens/s"),
        ("Prefill", bars("prefill_tokens_per_second"), "tokens/s"),
        ("Memory while running: own (solid), shared with the page cache (pale)", memory, "GB"),
    ])
    return "\n".join(lines) + "\n"
