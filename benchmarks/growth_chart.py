"""Line charts over the guest's memory, side by side, as SVG."""

import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 250, 190, 60, 40, 80
_COLOURS = ("#27c", "#c54", "#4a9")

Panel = Mapping[str, Sequence[float]]
"""Lines by name; each has one value for each size."""


def chart(sizes: Sequence[int], panels: Mapping[str, Panel]) -> str:
    """Draw the chart; `sizes` (MiB, two or more) on a logarithmic axis, values from 0."""
    width, height = _LEFT + len(panels) * (_WIDTH + _GAP), _TOP + _HEIGHT + 60
    form = f'width="{width}" height="{height}" font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {form}>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, lines) in enumerate(panels.items()):
        parts += _panel(_LEFT + number * (_WIDTH + _GAP), title, sizes, lines)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(left: int, title: str, sizes: Sequence[int], lines: Panel) -> list[str]:
    bottom, most = _TOP + _HEIGHT, max(max(values) for values in lines.values()) or 1.0
    low, high = math.log2(min(sizes)), math.log2(max(sizes))
    places = [left + (math.log2(size) - low) / (high - low) * _WIDTH for size in sizes]
    parts = [f'<text x="{left}" y="{_TOP - 22}" font-weight="bold">{title}</text>']
    for part in (0.0, 0.5, 1.0):
        y = bottom - part * _HEIGHT
        value = part * most
        label = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        parts.append(f'<path d="M{left} {y:.0f}h{_WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{label}</text>')
    parts += [
        f'<text x="{x:.0f}" y="{bottom + 18}" text-anchor="middle">{size}</text>'
        for x, size in zip(places, sizes, strict=True)
    ]
    for number, (name, values) in enumerate(lines.items()):
        heights = [bottom - value / most * _HEIGHT for value in values]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True))
        form = f'fill="none" stroke="{_COLOURS[number]}" stroke-width="2"'
        parts.append(f'<polyline points="{points}" {form}/>')
        x = left + number * 120
        parts.append(f'<text x="{x}" y="{bottom + 40}" fill="{_COLOURS[number]}">{name}</text>')
    return parts
