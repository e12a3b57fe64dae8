"""Pictures drawn here as SVG: readable without a script, in the page's own colours by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from app.dashboard.words import percent
from app.reprogramming.metrics import wilson

_FLOWS = 40  # more lines than this are a carpet


def _svg(width: float, height: float, title: str, inner: str, kind: str) -> Markup:
    kind += " wide" if width > 480 else ""
    box = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}"'
    drawn = f'<svg class="drawing {kind}" {box}>{inner}</svg>'
    return Markup(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">{drawn}</div>'
    )


def meter(spent: float, reserved: float, cap: float | None) -> Markup:
    """Spent and reserved of a cap, as one bar."""
    whole = cap or max(spent + reserved, 1e-9)
    a, b = 100 * min(spent / whole, 1), 100 * min(reserved / whole, 1)
    inner = (
        '<rect class="track" width="100" height="6"/>'
        f'<rect class="spent" width="{a:.2f}" height="6"/>'
        f'<rect class="reserved" x="{a:.2f}" width="{min(b, 100 - a):.2f}" height="6"/>'
    )
    title = f"{a:.0f} % spent, {b:.0f} % reserved" if cap else "no cap"
    frame = 'class="drawing meter" viewBox="0 0 100 6" preserveAspectRatio="none" role="img"'
    return Markup(f'<svg {frame} aria-label="{title}">{inner}</svg>')


def forest(rows: Sequence[tuple[str, float, Sequence[float], bool]]) -> Markup:
    """Shares with their 95 % intervals under each other: (name, share, (low, high), whether it is ours)."""
    width, line, left, right = 640, 34, 170, 70
    span = width - left - right
    parts: list[str] = []
    for tick in range(0, 101, 25):
        x = left + span * tick / 100
        parts.append(f'<line class="grid" x1="{x:g}" x2="{x:g}" y1="4" y2="{line * len(rows) + 4}"/>')
        parts.append(
            f'<text class="tick" x="{x:g}" y="{line * len(rows) + 20}" text-anchor="middle">{tick} %</text>'
        )
    for i, (name, share, ends, ours) in enumerate(rows):
        y, kind = line * i + 21, "ours" if ours else "rival"
        low, high = (left + span * end for end in ends)
        x = left + span * share
        parts.append(
            f'<g class="{kind}"><text x="0" y="{y + 5}">{escape(name)}</text>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/><circle cx="{x:.1f}" cy="{y}" r="6"/>'
            f'<text x="{width}" y="{y + 5}" text-anchor="end">{percent(share)}</text></g>'
        )
    return _svg(
        width,
        line * len(rows) + 26,
        "Accuracy on the test split with 95 % intervals",
        "".join(parts),
        "forest",
    )


def histogram(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> Markup:
    """Images per class, train, val and test side by side in one bar."""
    line, width, right = 26, 640, 60
    left = 30 + 7 * min(max((len(name) for name in classes), default=1), 20)
    most = max((sum(row.get(name, 0) for row in counts.values()) for name in classes), default=1) or 1
    parts: list[str] = []
    for i, name in enumerate(classes):
        y, x = i * line, float(left)
        shown = name if len(name) < 20 else f"{name[:18]}…"
        parts.append(f'<text x="{left - 12}" y="{y + 17}" text-anchor="end">{escape(shown)}</text>')
        for split in ("train", "val", "test"):
            wide = (width - left - right) * counts.get(split, {}).get(name, 0) / most
            parts.append(
                f'<rect class="{split}" x="{x:.1f}" y="{y + 4}" width="{wide:.1f}" height="{line - 8}"/>'
            )
            x += wide
        total = sum(row.get(name, 0) for row in counts.values())
        parts.append(f'<text class="tick" x="{x + 8:.1f}" y="{y + 17}">{total:,}</text>')
    return _svg(width, max(line * len(classes), line), "Images per class", "".join(parts), "histogram")


def reliability(points: Sequence[tuple[float, float, int]]) -> Markup:
    """Share right with its 95 % interval over mean top score; on the diagonal a score means what it says."""
    side, edge = 320, 44
    parts = [f'<line class="ideal" x1="{edge}" y1="{side}" x2="{edge + side}" y2="0"/>']
    for tick in range(0, 101, 25):
        at = side * tick / 100
        parts.append(
            f'<line class="grid" x1="{edge}" x2="{edge + side}" y1="{side - at:g}" y2="{side - at:g}"/>'
            f'<text class="tick" x="{edge - 8}" y="{side - at + 4:g}" text-anchor="end">{tick}</text>'
            f'<text class="tick" x="{edge + at:g}" y="{side + 18}" text-anchor="middle">{tick}</text>'
        )
    most = max((n for _, _, n in points), default=1)
    track = " ".join(f"{edge + side * x:.1f},{side - side * y:.1f}" for x, y, _ in points)
    parts.append(f'<polyline class="curve" points="{track}"/>')
    for x, y, n in points:
        cx, cy, r = edge + side * x, side - side * y, 4 + 7 * (n / most) ** 0.5
        low, high = (side - side * end for end in wilson(round(y * n), n))
        parts.append(
            f'<line class="sure" x1="{cx:.1f}" x2="{cx:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
            f'<circle class="dot" cx="{cx:.1f}" cy="{cy:.1f}" r="{r:.1f}">'
            f"<title>{n} images: score {percent(x)}, right {percent(y)}</title></circle>"
        )
    parts.append(
        f'<text class="tick" x="{edge + side / 2}" y="{side + 36}" text-anchor="middle">'
        "score of the answer, %</text>"
        f'<text class="tick" x="{edge + 6}" y="12">right, %</text>'
    )
    inner = f'<g transform="translate(0 10)">{"".join(parts)}</g>'
    return _svg(
        side + edge + 16, side + 52, "Reliability: share right against the score given", inner, "reliability"
    )


def strongest(rows: Sequence[Mapping[str, Any]], view: int) -> list[tuple[str, str, float]]:
    """(source label, target label, weight) of one view, the strongest flows first. Empty for a mapping that
    has no weights of its own per label."""
    flows = [
        (str(row["source_label"]), str(target), float(weight) / float(row["scale"] or 1))
        for row in rows
        if row["view"] == view and row["weights"]
        for target, weight in row["weights"].items()
        if weight > 0
    ]
    return sorted(flows, key=lambda flow: -flow[2])[:_FLOWS]


def flow(flows: Sequence[tuple[str, str, float]], targets: Sequence[str]) -> Markup:
    """Source labels on the left, target labels on the right, a ribbon as thick as the weight between."""
    sources = list(dict.fromkeys(source for source, _, _ in flows))
    used = [name for name in targets if any(target == name for _, target, _ in flows)]
    sources.sort(key=lambda name: min(used.index(t) for s, t, _ in flows if s == name))
    line, (left, beyond) = 26, (24 + 7 * min(max(map(len, names)), 19) for names in (sources, used))
    width = max(400, left + 150 + beyond)
    right = width - beyond
    rows = max(len(sources), len(used), 1)
    most = max((weight for _, _, weight in flows), default=1.0) or 1.0

    def place(i: int, n: int) -> float:
        return (i + 0.5) * line * rows / n

    y_source = {name: place(i, len(sources)) for i, name in enumerate(sources)}
    y_target = {name: place(i, len(used)) for i, name in enumerate(used)}
    parts: list[str] = []
    for source, target, weight in reversed(flows):
        a, b, mid = y_source[source], y_target[target], (left + right) / 2
        thick = 1 + 7 * weight / most
        parts.append(
            f'<path class="ribbon r{used.index(target) % 8}" stroke-width="{thick:.1f}" '
            f'd="M{left} {a:.1f}C{mid:g} {a:.1f} {mid:g} {b:.1f} {right} {b:.1f}">'
            f"<title>{escape(source)} to {escape(target)}: {weight:.3g}</title></path>"
        )
    for name, y in y_source.items():
        shown = name if len(name) < 20 else f"{name[:18]}…"
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(shown)}</text>')
    for name, y in y_target.items():
        shown = name if len(name) < 20 else f"{name[:18]}…"
        parts.append(f'<text class="strong" x="{right + 10}" y="{y + 4:.1f}">{escape(shown)}</text>')
    return _svg(
        width, line * rows, "Which source labels speak for which target label", "".join(parts), "flow"
    )


def curves(
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    bands: Sequence[Sequence[tuple[float, float, float]]],
    rivals: Sequence[tuple[str, float]],
    label: str,
) -> Markup:
    """Shares over x: each line (name, points), perhaps a band (x, low, high) around it; rivals are levels.
    Lines and levels carry the number that the key gives their name, so that nothing rests on colour."""
    width, height, left, right, top = 640, 260, 48, 30, 10
    span, deep = width - left - right, height - top - 46
    last = max((x for _, track in lines for x, _ in track), default=1.0) or 1.0
    shares = [y for _, track in lines for _, y in track] + [y for _, y in rivals]
    shares += [end for band in bands for _, *ends in band for end in ends]
    low, high = max(0.0, min(shares) - 0.04), min(1.0, max(shares) + 0.04)

    def at(x: float, y: float) -> str:
        return f"{left + span * x / last:.1f},{top + deep * (high - y) / (high - low):.1f}"

    parts: list[str] = []
    for i in range(5):
        share, x = low + (high - low) * i / 4, last * i / 4
        px, py = at(x, share).split(",")
        parts.append(f'<line class="grid" x1="{left}" x2="{left + span}" y1="{py}" y2="{py}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{float(py) + 4:g}" text-anchor="end">')
        parts.append(f"{100 * share:.0f} %</text>")
        parts.append(f'<text class="tick" x="{px}" y="{height - 24}" text-anchor="middle">{x:,.4g}</text>')
    for i, band in enumerate(bands):
        if band:
            ring = [at(x, high) for x, _, high in band] + [at(x, low) for x, low, _ in reversed(band)]
            parts.append(f'<polygon class="band b{i}" points="{" ".join(ring)}"/>')
    key: list[str] = []
    for i, (name, track) in enumerate([*lines, *((name, [(0.0, y), (last, y)]) for name, y in rivals)]):
        kind = f"r{i % 8}{' level' if i >= len(lines) else ''}"
        x, y = at(*track[-1]).split(",")
        parts.append(f'<polyline class="line {kind}" points="{" ".join(at(*point) for point in track)}"/>')
        parts.append(f'<text class="tick" x="{float(x) + 8:g}" y="{float(y) + 4:g}">{i + 1}</text>')
        key.append(f'<li class="c{i % 8}">{i + 1} {escape(name)}</li>')
    parts.append(
        f'<text class="tick" x="{left + span / 2:g}" y="{height - 4}" text-anchor="middle">{label}</text>'
    )
    drawn = _svg(width, height, f"Validation accuracy against {label}", "".join(parts), "curves")
    return drawn + Markup(f'<ul class="key">{"".join(key)}</ul>')
