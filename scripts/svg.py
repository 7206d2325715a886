"""A small SVG writer for the figures in docs/: boxes, text and arrows, always the same bytes for the same figure."""

from __future__ import annotations

from xml.sax.saxutils import escape

INK, QUIET, PAPER, ACCENT = "#1f2933", "#6b7785", "#ffffff", "#c2410c"
BLUE, GREEN, AMBER, ROSE, GREY = "#dbeafe", "#dcfce7", "#fef3c7", "#ffe4e6", "#f1f5f9"
_FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
_MONO = "ui-monospace, Menlo, Consolas, monospace"


class Drawing:
    """An SVG picture on white. Coordinates are pixels from the top left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        marker = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}" font-size="13" role="img">',
            f"<title>{escape(title)}</title>",
            f'<defs><marker id="head" {marker}><path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        ]

    def box(
        self, x: float, y: float, width: float, height: float, *, fill: str = GREY, stroke: str = INK, dashed: bool = False
    ) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{stroke}"{dash}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 13,
        bold: bool = False,
        mono: bool = False,
        anchor: str = "start",
        ink: str = INK,
    ) -> None:
        """Write one line; y: its baseline; anchor: start, middle or end."""
        style = (' font-weight="600"' if bold else "") + (f' font-family="{_MONO}"' if mono else "")
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{ink}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
        )

    def line(
        self, *points: tuple[float, float], ink: str = QUIET, width: float = 1, arrow: bool = False, dashed: bool = False
    ) -> None:
        """Draw a line through the points; arrow: with a head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = (' marker-end="url(#head)"' if arrow else "") + (' stroke-dasharray="4 4"' if dashed else "")
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="{width:g}"{style}/>')

    def dot(self, x: float, y: float, radius: float, *, fill: str = INK) -> None:
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}"/>')

    def svg(self) -> str:
        """Return the whole picture."""
        return "\n".join([*self._parts, "</svg>", ""])
