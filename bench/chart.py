"""The figures as an SVG: bars grouped by line of work, and one panel for each figure."""

from __future__ import annotations

from html import escape

COLOURS = ("#1b6ca8", "#c0504d", "#7f9f4f", "#8064a2", "#b0843c")
PANEL_WIDTH, PANEL_HEIGHT = 640, 260
LEFT, TOP, BOTTOM = 70, 50, 50
STYLE = (
    "text{font:12px sans-serif;fill:#222}"
    ".title{font-size:15px;font-weight:bold}"
    ".value{font-size:9px}"
)

Table = dict[str, dict[str, dict[str, float]]]


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:.2f} M"
    if value >= 10_000:
        return f"{value / 1e3:.0f} k"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _panel(title: str, table: Table, figure: str, servers: list[str], top: int) -> list[str]:
    highest = max(
        (row[server][figure] for row in table.values() for server in servers if server in row),
        default=0.0,
    )
    scale = (PANEL_HEIGHT - TOP - BOTTOM) / highest if highest > 0 else 0.0
    base = top + PANEL_HEIGHT - BOTTOM
    group = (PANEL_WIDTH - LEFT - 20) / max(1, len(table))
    bar = group * 0.8 / max(1, len(servers))
    parts = [
        f'<text x="{LEFT}" y="{top + 24}" class="title">{escape(title)}</text>',
        f'<line x1="{LEFT}" y1="{base}" x2="{PANEL_WIDTH - 20}" y2="{base}" stroke="#444"/>',
    ]
    for number, (line, row) in enumerate(table.items()):
        start = LEFT + number * group + group * 0.1
        middle = start + group * 0.4
        parts.append(
            f'<text x="{middle:.1f}" y="{base + 18}" text-anchor="middle">{escape(line)}</text>'
        )
        for place, server in enumerate(servers):
            if server not in row:
                continue
            value = row[server][figure]
            height = value * scale
            x = start + place * bar
            parts.append(
                f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{bar * 0.92:.1f}" '
                f'height="{height:.1f}" fill="{COLOURS[place % len(COLOURS)]}">'
                f"<title>{escape(server)}: {value:,.2f}</title></rect>"
            )
            parts.append(
                f'<text x="{x + bar * 0.46:.1f}" y="{base - height - 4:.1f}" class="value" '
                f'text-anchor="middle">{_short(value)}</text>'
            )
    return parts


def draw(table: Table, servers: list[str]) -> str:
    """An SVG document of requests a second and CPU time per request."""
    height = 2 * PANEL_HEIGHT + 40
    size = f'viewBox="0 0 {PANEL_WIDTH} {height}" width="{PANEL_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<style>{STYLE}</style>",
        f'<rect width="{PANEL_WIDTH}" height="{height}" fill="#fff"/>',
        *_panel("Requests a second (more is better)", table, "requests_per_second", servers, 0),
        *_panel(
            "Server CPU per request, µs (less is better)", table, "cpu_us", servers, PANEL_HEIGHT
        ),
    ]
    for place, server in enumerate(servers):
        x = LEFT + place * 130
        parts.append(
            f'<rect x="{x}" y="{height - 28}" width="12" height="12" '
            f'fill="{COLOURS[place % len(COLOURS)]}"/>'
            f'<text x="{x + 18}" y="{height - 18}">{escape(server)}</text>'
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
