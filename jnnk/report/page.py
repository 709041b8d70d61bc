"""``report.html``: one self-contained page of questions, answers, figures and their numbers."""

import functools
import html
import importlib.resources
import json
import pathlib
import re
import stat
import urllib.parse
from collections.abc import Sequence
from typing import Any, NamedTuple

from jnnk._core.errors import InputError

# In the dark, figures of matplotlib swap black and white; colours are told apart on both.
_THEME = """<style>@media (prefers-color-scheme: dark) {
svg { fill: #e6e9ec }
[style*="stroke: #000000"] { stroke: #e6e9ec !important }
[style*="fill: #000000"] { fill: #e6e9ec !important }
[style*="stroke: #ffffff"] { stroke: #15191d !important }
[style*="fill: #ffffff"] { fill: #15191d !important }
[style*="stroke: #4c4c4c"], [style*="stroke: #666666"] { stroke: #a8b2bd !important }
[style*="fill: #666666"] { fill: #a8b2bd !important }
[style*="fill: #d9d9d9"] { fill: #39424b !important }
[style*="stroke: #d9d9d9"] { stroke: #39424b !important }
[style*="stroke: #cccccc"], [style*="stroke: #b0b0b0"] { stroke: #6b7580 !important }
}</style>"""


# What may stand in a data URI within double quotes as it is: a quarter less than base64.
_IN_SVG = " !$'()*+,-./:;=?@[]^_`{|}~<>\\"


# By these first bytes a page is known as one of ours, which another may replace.
_START = "<!doctype html>\n<!-- made by jnnk -->\n"


class Drawing(NamedTuple):
    """A figure of the page.

    Attributes:
        name: its id, and the name of its CSV file.
        content: HTML of the picture.
        caption: one sentence, plain text.
        csv: its numbers.
    """

    name: str
    content: str
    caption: str
    csv: str


class Section(NamedTuple):
    """One question and its answer.

    Attributes:
        title: the question.
        text: a few sentences of plain text.
        drawings: the figures.
        table: header and rows, or None.
    """

    title: str
    text: str
    drawings: Sequence[Drawing] = ()
    table: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None


class Answer(NamedTuple):
    """A question answered in short, at the top of the page.

    Attributes:
        question: in a few words.
        number: the answer.
        text: what the number is, plain text.
    """

    question: str
    number: str
    text: str


def picture(svg: bytes, alt: str) -> str:
    """An SVG of matplotlib as an image that follows the page's theme.

    Args:
        svg: the file.
        alt: what it shows, for those who do not see it.
    """
    start = svg.index(b">", svg.index(b"<svg")) + 1
    themed = svg[:start] + _THEME.encode() + svg[start:]
    # Hundredths of a point are enough on a screen, and make a third less of the page.
    short = re.sub(rb"(?<![\d.])([1-9]\d*\.\d\d)\d+", rb"\1", themed)
    text = re.sub(r"\s+", " ", short.decode()).replace("> <", "><").replace('"', "'")
    text = re.sub("<g id='[^']*'>", "<g>", text)  # nothing refers to a group
    source = "data:image/svg+xml," + urllib.parse.quote(text, safe=_IN_SVG)
    return f'<div class="wide"><img alt="{_text(alt)}" src="{source}"></div>'


def click_pictures(images: dict[str, str], layers: dict[str, list[list[int]]]) -> str:
    """Where a click on the figure ``overlap_explorer`` shows the images of two channels.

    Args:
        images: a key each to its data URI.
        layers: layer name to the keys of each of its channels' images.
    """
    data = json.dumps({"images": images, "layers": layers}, separators=(",", ":"))
    return (
        '<div class="pair" id="channel_pair"><p>Click a cell to see the images that its two '
        "channels answer to most.</p></div>"
        f'<script type="application/json" id="channel_pictures">{_in_script(data)}</script>'
        f'<script type="module">{_resource("report.js")}</script>'
    )


def render(
    title: str,
    lead: str,
    answers: Sequence[Answer],
    overview: Section | None,
    sections: Sequence[Section],
) -> str:
    """The whole page.

    Args:
        title: of the page.
        lead: one line below it.
        answers: what one wants to know first.
        overview: shown with them, without a title of its own.
        sections: the rest.

    Returns:
        HTML that needs no other file.
    """
    body = [f"<h1>{_text(title)}</h1>", f'<p class="lead">{_text(lead)}</p>']
    if answers:
        body += ['<div class="answers">', *map(_answer, answers), "</div>"]
    if overview is not None:
        body.append(f'<div class="overview">{_content(overview)}</div>')
    links = [f'<a href="#{_anchor(n)}">{_text(each.title)}</a>' for n, each in enumerate(sections)]
    body += ["<nav>", *links, "</nav>"]
    for number, section in enumerate(sections):
        body.append(f'<section id="{_anchor(number)}"><h2>{_text(section.title)}</h2>')
        body += [_content(section), "</section>"]
    page = "\n".join(body)
    plotly = f"<script>{_plotly()}</script>" if "plotly-graph-div" in page else ""
    return (
        f'{_START}<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{_text(title)}</title><style>{_resource('report.css')}</style>{plotly}</head>\n"
        f"<body>\n{page}\n</body></html>\n"
    )


def check_page(path: pathlib.Path) -> None:
    """Refuses to replace what is not a page of :func:`render`.

    Args:
        path: where a page is to go; nothing need be there.

    Raises:
        InputError: for a folder, link or device, or a file that does not begin as our pages do.
    """
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
        begin = b""
        if is_file:
            with path.open("rb") as file:
                begin = file.read(len(_START))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if begin != _START.encode():
        raise InputError(f"{path}: there is something that jnnk did not make; name another file")


def _answer(answer: Answer) -> str:
    """A question and its answer at the top of the page, as HTML."""
    question, number, text = map(_text, answer)
    return f'<div class="answer"><h3>{question}</h3><b>{number}</b><p>{text}</p></div>'


def _content(section: Section) -> str:
    """A section's text, figures and table, as HTML."""
    parts = [f"<p>{_text(section.text)}</p>"] if section.text else []
    parts += map(_figure, section.drawings)
    if section.table is not None:
        parts.append(_table(*section.table))
    return "\n".join(parts)


def _figure(drawing: Drawing) -> str:
    """A figure with its caption and a link to its numbers, as HTML."""
    name, csv = _text(drawing.name), urllib.parse.quote(drawing.csv, safe=" ,./+-=()")
    return (
        f'<figure id="figure-{name}">{drawing.content}<figcaption>{_text(drawing.caption)} '
        f'<a class="download" download="{name}.csv" href="data:text/csv,{csv}">'
        "Numbers (CSV)</a></figcaption></figure>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as HTML."""

    def row(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        '<div class="scroll"><table><thead>'
        + row(header, "th")
        + "</thead><tbody>"
        + "".join(row(cells, "td") for cells in rows)
        + "</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    """A value of a table: three digits of a float, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else _text(value)


def _anchor(number: int) -> str:
    """The id of the section of that number."""
    return f"question-{number + 1}"


def _text(value: Any) -> str:
    """A value as plain text of HTML."""
    return html.escape(str(value))


def _in_script(text: str) -> str:
    """JSON that no HTML parser takes for the end of its script."""
    return text.replace("<", "\\u003c")


def _resource(name: str) -> str:
    """A file that lies beside this module."""
    return importlib.resources.files("jnnk.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    """Plotly's script."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
