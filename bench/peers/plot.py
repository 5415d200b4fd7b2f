"""Several curves of recall against a positive value, as an SVG that any browser opens.

The value's axis is logarithmic. The recall's is too, in what is missing to 1: from .99 to .999 is as far as from .9 to .99, which is where
systems part.
"""
import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1000, 520
LEFT, TOP, RIGHT, BOTTOM = 84, 82, 670, 450
INK, QUIET, GRID = "#1f2937", "#6b7280", "#e5e7eb"
# Okabe and Ito's colors, told apart by every eye.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
RECALLS = [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999]
MOST = 0.9999


def missing(recall):
    """Where a recall lies on its axis."""
    return -math.log10(1 - min(recall, MOST))


def svg(title, subtitle, x_label, y_label, series):
    """`series` is [(name, [(recall, value)])]; values that are not above 0 are left out."""
    series = [(name, [(r, v) for r, v in points if v > 0]) for name, points in series]
    every = [point for _, points in series for point in points]
    if not every:
        return ""
    low, high = (missing(f(r for r, _ in every)) for f in (min, max))
    marks = [r for r in RECALLS if low - 0.3 <= missing(r) <= high + 0.3] or RECALLS[-2:]
    x0, x1 = min(low, missing(marks[0])), max(high, missing(marks[-1]), low + 0.1)
    values = [v for _, v in every]
    powers = range(math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values))) + 1)
    steps = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    y0 = max(s for s in steps if s <= min(values) * 0.98)
    y1 = min((s for s in steps if s >= max(values) * 1.02), default=max(values) * 1.1)
    x = lambda r: LEFT + (missing(r) - x0) / (x1 - x0) * (RIGHT - LEFT)
    y = lambda v: BOTTOM - (math.log10(v) - math.log10(y0)) / (math.log10(y1) - math.log10(y0)) * (BOTTOM - TOP)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, \'Helvetica Neue\', Arial, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="34" font-size="18" font-weight="600">{escape(title)}</text>',
        f'<text x="{LEFT}" y="56" fill="{QUIET}">{escape(subtitle)}</text>',
    ]
    for recall in marks:
        out.append(f'<line x1="{x(recall):.1f}" y1="{TOP}" x2="{x(recall):.1f}" y2="{BOTTOM}" stroke="{GRID}"/>')
        out.append(f'<text x="{x(recall):.1f}" y="{BOTTOM + 20}" text-anchor="middle" fill="{QUIET}">{recall:g}</text>')
    for value in (s for s in steps if y0 <= s <= y1):
        out.append(f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{RIGHT}" y2="{y(value):.1f}" stroke="{GRID}"/>')
        text = f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
        out.append(f'<text x="{LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end" fill="{QUIET}">{text}</text>')
    out.append(f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="{QUIET}"/>')
    out.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 48}" text-anchor="middle" font-size="13">{escape(x_label)}</text>')
    middle = (TOP + BOTTOM) / 2
    out.append(f'<text transform="translate(24 {middle}) rotate(-90)" text-anchor="middle" font-size="13">{escape(y_label)} (log)</text>')
    for at, (name, points) in enumerate(series):
        color = COLORS[at % len(COLORS)]
        places = [(x(r), y(v)) for r, v in points]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        out.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{3 if at == 0 else 2}" stroke-linejoin="round"/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{color}" stroke="white" stroke-width="1.5"/>' for px, py in places]
        key = TOP + 14 + 24 * at
        out.append(f'<line x1="{RIGHT + 20}" y1="{key}" x2="{RIGHT + 46}" y2="{key}" stroke="{color}" stroke-width="{3 if at == 0 else 2}"/>')
        out.append(f'<circle cx="{RIGHT + 33}" cy="{key}" r="4" fill="{color}" stroke="white" stroke-width="1.5"/>')
        out.append(f'<text x="{RIGHT + 54}" y="{key + 4}">{escape(name)}</text>')
    out.append("</svg>\n")
    return "\n".join(out)
