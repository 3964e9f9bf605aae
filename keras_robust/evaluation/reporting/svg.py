"""Charts of accuracies with their intervals as inline SVG; colours and fonts come from the page's style sheet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from keras_robust.statistics import Proportion

WIDTH, HEIGHT = 360, 240  # of a chart, in units that are about a pixel on a phone
LEFT, RIGHT, TOP, BOTTOM = 34, 12, 30, 40
DODGE = 4  # between intervals of several series at the same place
N_STYLES = 6


@dataclass(frozen=True)
class Series:
    """A line: its name, number of its colour and marker, and points (x, `Proportion`) from left to right."""

    name: str
    style: int
    points: Sequence[tuple[float, Proportion]]


def chart(title: str, series: Sequence[Series], label: str, ticks: Sequence[tuple[float, str]]) -> str:
    """Accuracy in percent against a quantity, with 95 % intervals."""
    xs = [x for x, _ in ticks] + [x for each in series for x, _ in each.points]
    low, high = min(xs), max(xs)
    pad = 0.06 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def across(x):
        return LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = _frame(title, series, HEIGHT)
    for percent in (0, 25, 50, 75, 100):
        y = _down(percent / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{percent}</text>')
    for x, text in ticks:
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle" class="label">{escape(label)}</text>')
    for number, each in enumerate(series):
        shift = DODGE * (number - (len(series) - 1) / 2)
        parts.append(f'<g class="s{each.style % N_STYLES}">')
        at = [(across(x) + shift, share) for x, share in each.points]
        line = " ".join(f"{x:.1f},{_down(share.value):.1f}" for x, share in at)
        parts.append(f'<polyline points="{line}"/>')
        for (x, share), (value, _) in zip(at, each.points):
            parts += [
                _whisker(x, share),
                _marker(x, _down(share.value), each.style, f"{each.name}, {value:g}: {share}"),
            ]
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def bars(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, int, Proportion]]]]) -> str:
    """Horizontal bars with 95 % intervals: groups (label, bars), each bar (name, style, `Proportion`)."""
    bar, gap = 15, 14
    height = TOP + sum(len(rows) * bar + gap + 14 for _, rows in groups)
    flat = [Series(name, style, [(0, share)]) for _, rows in groups for name, style, share in rows]
    parts, y, span = _frame(title, flat, height), TOP, WIDTH - 70
    for label, rows in groups:
        parts.append(f'<text x="0" y="{y + 10}" class="label">{escape(label)}</text>')
        y += 16
        for name, style, share in rows:
            lower, upper = (span * end for end in share.interval)
            middle = y + bar / 2 - 1
            parts.append(f'<g class="s{style % N_STYLES}"><title>{escape(f"{name}, {label}: {share}")}</title>')
            parts.append(f'<rect class="track" x="0" y="{y}" width="{span}" height="{bar - 2}" rx="2"/>')
            parts.append(
                f'<rect class="bar" x="0" y="{y}" width="{span * share.value:.1f}" height="{bar - 2}" rx="2"/>'
            )
            parts.append(
                f'<path class="interval" d="M{lower:.1f} {middle}H{upper:.1f}M{lower:.1f} {middle - 4}v8'
                f'M{upper:.1f} {middle - 4}v8"/>'
            )
            parts.append(f'<text x="{WIDTH}" y="{y + 11}" text-anchor="end">{100 * share.value:.1f} %</text></g>')
            y += bar
        y += gap
    return "".join([*parts, "</svg>"])


def key(style: int) -> str:
    """A marker for a legend."""
    marker = _marker(8, 8, style, "")
    size = 'viewBox="0 0 16 16" width="16" height="16"'
    return f'<svg class="key s{style % N_STYLES}" {size} aria-hidden="true">{marker}</svg>'


def _frame(title, series, height):
    spoken = "; ".join(
        f"{each.name}: {', '.join(f'{100 * share.value:.1f} %' for _, share in each.points)}" for each in series
    )
    return [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(f"{title}. {spoken}")}">',
        f'<text x="0" y="14" class="title">{escape(title)}</text>',
    ]


def _down(share):
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


def _whisker(x, share):
    low, high = (_down(end) for end in share.interval)
    return (
        f'<path class="interval" d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"/>'
    )


def _marker(x, y, style, text):
    shape = SHAPES[style % len(SHAPES)](x, y)
    return f"<g class='marker'><title>{escape(text)}</title>{shape}</g>" if text else f"<g class='marker'>{shape}</g>"


def _path(*points: tuple[float, float]) -> Callable[[float, float], str]:
    return lambda x, y: f'<path d="M{"L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in points)}Z"/>'


# Told apart without colour.
SHAPES: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    _path((-4, -4), (4, -4), (4, 4), (-4, 4)),
    _path((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
    _path((0, -5), (5, 4), (-5, 4)),
    _path((0, 5), (5, -4), (-5, -4)),
    _path((-5, -2), (-2, -2), (-2, -5), (2, -5), (2, -2), (5, -2), (5, 2), (2, 2), (2, 5), (-2, 5), (-2, 2), (-5, 2)),
)
