"""The learning curve as an SVG picture, written by hand: two lines need no plotting library.

Owns the picture. It reads well in light and dark and without colour: the lines differ in their marks too.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from memento.demo.trial import Round

__all__ = ["learning_svg"]

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 120, 70, 50
_COLOURS = {"on": "#1a7f37", "off": "#6e7781"}


def learning_svg(rounds: Sequence[Round]) -> str:
    """Accuracy per round, one line with memory on and one with memory off."""
    last = max(one.round for one in rounds)

    def x(number: int) -> float:
        width = _WIDTH - _LEFT - _RIGHT
        return _LEFT + (width * (number - 1) / (last - 1) if last > 1 else width / 2)

    def y(accuracy: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - accuracy)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        "<title>Accuracy per round of the Memento demo, with memory on and off</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 28, "Share of questions answered correctly", size=15),
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        line = f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="#d0d7de"/>'
        parts += [line, _text(_LEFT - 8, y(share) + 4, f"{share:.0%}", anchor="end")]
    for number in range(1, last + 1):
        parts.append(_text(x(number), _HEIGHT - _BOTTOM + 22, f"round {number}", anchor="middle"))
    for memory, colour in _COLOURS.items():
        mine = sorted((one for one in rounds if one.memory == memory), key=lambda one: one.round)
        points = [(x(one.round), y(one.accuracy)) for one in mine]
        dash = "" if memory == "on" else ' stroke-dasharray="6 4"'
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>')
        for one, (px, py) in zip(mine, points, strict=True):
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.5" fill="{colour}"/>')
            above = -12 if memory == "on" else 22
            parts.append(_text(px, py + above, f"{one.accuracy:.0%}", anchor="middle", colour=colour))
        end_x, end_y = points[-1]
        parts.append(_text(end_x + 24, end_y + 4, f"memory {memory}", colour=colour))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, colour: str = "#1f2328") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )
