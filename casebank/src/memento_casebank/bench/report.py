"""How bench results are told: the machine, means with 95 % intervals, tables, learning curves as SVG."""

from __future__ import annotations

import html
import json
import os
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memento_casebank.bench.world import DataError

__all__ = ["Estimate", "by_policy", "draw_curves", "estimate", "machine", "read_results"]

_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
"""Student's t, two-sided 95 %, for 1 to 15 degrees of freedom; 1.96 serves from there on within 7 %."""


@dataclass(frozen=True)
class Estimate:
    mean: float
    half_width: float
    """Of the 95 % interval over seeds; NaN with one seed."""

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if np.isnan(self.half_width) else f"{self.mean:.3f} ± {self.half_width:.3f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean over seeds with Student's 95 % interval."""
    n = len(values)
    if n < 2:
        return Estimate(float(np.mean(values)), float("nan"))
    t = _T95[n - 2] if n - 2 < len(_T95) else 1.96
    return Estimate(float(np.mean(values)), t * float(np.std(values, ddof=1)) / n**0.5)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1min": None if load is None else round(load, 2),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "default"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.platform(terse=True),
    }


def by_policy(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Results grouped by policy, in order of first appearance."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        groups[str(result["policy"])].append(result)
    return dict(groups)


# An SVG needs no library: polylines, a band, two axes. Colours are those of Okabe & Ito, told apart by colour-blind
# readers too; every line is also named at its end.
_COLOURS = (
    "#000000",
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C8C8C",
    "#B8A800",
    "#7F3C8D",
)
_WIDTH, _HEIGHT = 860, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 190, 46, 48


def draw_curves(results: Sequence[Mapping[str, Any]], *, title: str, every: int = 500, note: str = "") -> str:
    """Draw success over time per policy, mean over seeds with the range of the seeds, as an SVG.

    Args:
        results: stream results with `policy` and `curve` (means over `every` utterances).
        title: the headline.
        note: small print under the headline, such as the command that made the numbers.
    """
    curves = {
        policy: np.array([run["curve"] for run in runs], np.float64) for policy, runs in by_policy(results).items()
    }
    longest = max(curve.shape[1] for curve in curves.values())
    high = min(1.0, 0.05 + max(float(curve.max()) for curve in curves.values()))
    top = float(np.ceil(high * 20) / 20)

    def x(block: float) -> float:
        return _LEFT + (block + 1) / longest * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share / top * (_HEIGHT - _TOP - _BOTTOM)

    def points(shares: NDArray[np.float64]) -> list[str]:
        return [f"{x(block):.1f},{y(float(share)):.1f}" for block, share in enumerate(shares)]

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="20" font-size="15" font-weight="600" fill="#111">{html.escape(title)}</text>',
        f'<text x="{_LEFT}" y="36" fill="#666">{html.escape(note)}</text>',
    ]
    for tick in np.arange(0.0, top + 1e-9, 0.1):
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#444">{tick:.0%}</text>')
    for block in range(1, longest + 1, 2):
        parts.append(
            f'<text x="{x(block):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="#444">'
            f"{(block + 1) * every:,}</text>"
        )
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 10}" fill="#444">tasks done (means over {every})</text>')
    ends: list[tuple[float, str, str]] = []
    for number, (policy, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        low, mean, upper = curve.min(axis=0), curve.mean(axis=0), curve.max(axis=0)
        forth, back, line = points(upper), points(low)[::-1], " ".join(points(mean))
        width = 2.6 if policy == "bag" else 1.4
        dash = ' stroke-dasharray="5 4"' if policy == "no_memory" else ""
        if len(curve) > 1:
            parts.append(f'<polygon points="{" ".join(forth + back)}" fill="{colour}" fill-opacity="0.08"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>')
        ends.append((y(float(mean[-1])), policy, colour))
    for at, policy, colour in _spread_labels(ends, 14.0):
        parts.append(f'<text x="{_WIDTH - _RIGHT + 6}" y="{at + 4:.1f}" fill="{colour}">{html.escape(policy)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _spread_labels(ends: Sequence[tuple[float, str, str]], gap: float) -> list[tuple[float, str, str]]:
    """Push line names apart, from the bottom up, so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    limit = _HEIGHT - _BOTTOM + 4.0
    for at, policy, colour in sorted(ends, reverse=True):
        spot = min(at, limit)
        placed.append((spot, policy, colour))
        limit = spot - gap
    return placed


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The `results` of bench outputs written with --json.

    Raises:
        DataError: a file is not such an output.
    """
    results: list[dict[str, Any]] = []
    for path in paths:
        try:
            results += json.loads(path.read_text(encoding="utf-8"))["results"]
        except (KeyError, TypeError, ValueError) as exc:
            raise DataError(f"{path} is not the --json output of a bench.") from exc
    return results
