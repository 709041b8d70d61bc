"""``report.html``: one self-contained page from ``results.json`` and the figures."""

import base64
import html
from typing import Any, NamedTuple

_STYLE = """
:root { color-scheme: light dark; --text: #1d2125; --soft: #5b6570; --line: #d8dde3;
        --page: #ffffff; --card: #f5f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ec; --soft: #a3adb8; --line: #3a424b; --page: #15191d; --card: #1f252b; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--page);
       max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
p.lead, figcaption { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; }
.card { background: var(--card); border-radius: .5rem; padding: .75rem 1rem; }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .9rem; }
figure { margin: 1rem 0; } figure img { width: 100%; background: #fff; border-radius: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
@media print { body { max-width: none; } figure, .card { break-inside: avoid; } }
"""


class Section(NamedTuple):
    """One question and its answer.

    Attributes:
        title: the question.
        text: one or two sentences of plain text.
        figures: (name, SVG bytes, what it shows) each.
        table: header and rows, or None.
    """

    title: str
    text: str
    figures: list[tuple[str, bytes, str]]
    table: tuple[list[str], list[list[Any]]] | None = None


def render(title: str, lead: str, cards: list[tuple[str, str]], sections: list[Section]) -> str:
    """The whole page.

    Args:
        title: of the page.
        lead: one line below it.
        cards: (number, what it is) each, the answers in short.
        sections: the rest.

    Returns:
        HTML that needs no other file.
    """
    body = [f"<h1>{_text(title)}</h1>", f'<p class="lead">{_text(lead)}</p>', '<div class="cards">']
    body += [f'<div class="card"><b>{_text(n)}</b><span>{_text(w)}</span></div>' for n, w in cards]
    body.append("</div>")
    for section in sections:
        body += [f"<h2>{_text(section.title)}</h2>", f"<p>{_text(section.text)}</p>"]
        for name, svg, caption in section.figures:
            source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
            body.append(
                f'<figure id="{_text(name)}"><img alt="{_text(caption)}" src="{source}">'
                f"<figcaption>{_text(caption)}</figcaption></figure>"
            )
        if section.table is not None:
            body.append(_table(*section.table))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _table(header: list[str], rows: list[list[Any]]) -> str:
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        '<div class="scroll"><table><thead>'
        + row(header, "th")
        + "</thead><tbody>"
        + "".join(row(cells, "td") for cells in rows)
        + "</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    return html.escape(str(value))
