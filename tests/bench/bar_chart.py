"""Panels of horizontal bars as one SVG, without a library. Readable on light and dark pages."""
from xml.sax.saxutils import escape

COLORS = {"quire": "#2f6f9f", "llama.cpp": "#b5793a"}
WIDTH, LABEL, VALUE = 860, 210, 120
BAR, GAP, TITLE = 20, 8, 32


def panel(top, title, bars, unit):
    """bars: (label, group, [parts that lie end to end], low, high), low and high of the whole or None. Returns the elements and the
    height."""
    longest = max([sum(parts) for _, _, parts, _, _ in bars] + [high or 0 for *_, high in bars])
    scale = (WIDTH - LABEL - VALUE) / longest
    out = [f'<text x="0" y="{top + 20}" class="title">{escape(title)}</text>']
    y = top + TITLE
    for label, group, parts, low, high in bars:
        out.append(f'<text x="{LABEL - 10}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        x = LABEL
        for i, part in enumerate(parts):
            width = max(part * scale, 0.5)
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{COLORS[group]}" fill-opacity="{1 if i == 0 else 0.45}"/>')
            x += width
        if low is not None and high > low:
            a, b, middle = LABEL + low * scale, LABEL + high * scale, y + BAR / 2
            out.append(f'<path d="M{a:.1f} {middle}H{b:.1f}M{a:.1f} {middle - 4}V{middle + 4}M{b:.1f} {middle - 4}V{middle + 4}" class="range"/>')
            x = max(x, b)
        out.append(f'<text x="{x + 8:.1f}" y="{y + 15}" class="value">{sum(parts):.3g} {escape(unit)}</text>')
        y += BAR + GAP
    return out, y - top + 16


def write_svg(path, title, panels):
    """panels: arguments of `panel` without `top`."""
    top, body = 40, [f'<text x="0" y="22" class="head">{escape(title)}</text>']
    for arguments in panels:
        elements, height = panel(top, *arguments)
        body += elements
        top += height
    style = ("text{font:13px system-ui,sans-serif;fill:#57606a}.head{font-size:16px;font-weight:600}.title{font-weight:600}"
             ".range{stroke:#24292f;fill:none}"
             "@media(prefers-color-scheme:dark){text{fill:#b1bac4}.range{stroke:#f0f6fc}}")
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img">'
                    f"<title>{escape(title)}</title><style>{style}</style>\n" + "\n".join(body) + "\n</svg>\n")
