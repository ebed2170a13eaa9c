"""Results for people and machines: a table, bench.json, a chart."""

import json
from collections.abc import Sequence
from html import escape

from benchmarks.results import Result

_HEAD = ("name", "value", "unit", "versus", "ratio", "target", "", "against")
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d"'
    ' font-family="sans-serif" font-size="12">'
)
_BAR = '<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>'
_RIGHT = (False, True, False, True, True, True, False, False)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(results: Sequence[Result]) -> str:
    """Format one aligned line for each result."""
    rows = [_HEAD]
    for result in results:
        ratio = "" if result.ratio is None else f"{result.ratio:.3f}"
        target = "" if result.target is None else f"≤ {result.target:g}"
        figures = (_figure(result.value), result.unit, _figure(result.versus), ratio, target)
        rows.append((result.name, *figures, result.verdict, result.against))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, _RIGHT, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def as_json(results: Sequence[Result]) -> str:
    """Format results as JSON; `versus` and `ratio` are null where there is no comparison."""
    rows = [
        {
            "name": result.name,
            "value": result.value,
            "unit": result.unit,
            "versus": result.versus,
            "ratio": result.ratio,
        }
        for result in results
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_svg(results: Sequence[Result]) -> str:
    """Draw a bar for each ratio, in parts of its target, or of 1 if it has none."""
    shown = [result for result in results if result.ratio is not None]
    left, scale, row = 130, 300, 22
    height = row * len(shown) + 30
    parts = [
        _SVG % (left + 2 * scale + 20, height),
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, result in enumerate(shown):
        part = (result.ratio or 0) / (result.target or 1)
        colour = {"ok": "#4a9", "over": "#c54"}.get(result.verdict, "#aaa")
        y = number * row + 6
        label = f"{result.ratio:.3f}" + (f" of {result.target:g}" if result.target else "")
        parts += [
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(result.name)}</text>',
            _BAR % (left, y, scale * min(part, 2), row - 6, colour),
            f'<text x="{left + 6}" y="{y + 12}">{label}</text>',
        ]
    x = left + scale
    parts.append(f'<line x1="{x}" y1="0" x2="{x}" y2="{height - 22}" stroke="black"/>')
    parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">target</text></svg>')
    return "\n".join(parts) + "\n"
