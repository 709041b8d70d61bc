"""What MkDocs does not do by itself: notebooks become pages, formulas become MathML."""

import base64
import html
import json
import pathlib
import re

from latex2mathml.converter import convert
from mkdocs.structure.files import File

# What `pymdownx.arithmatex` leaves of $...$ and $$...$$.
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</(?:span|div)>', re.DOTALL
)


class Notebook(File):
    """A notebook that is a page: links to the .ipynb lead to it."""

    def is_documentation_page(self):
        return True


def on_files(files, config):
    """Puts a page and its pictures in the place of every notebook."""
    for file in list(files):
        if not file.src_uri.endswith(".ipynb"):
            continue
        text, pictures = to_markdown(json.loads(file.content_string), name=file.name)
        files.remove(file)
        files.append(Notebook.generated(config, file.src_uri, content=text))
        folder = pathlib.PurePosixPath(file.src_uri).parent
        for name, content in pictures.items():
            files.append(File.generated(config, str(folder / name), content=content))
    return files


def on_page_content(content, **_):
    """Formulas in MathML, which browsers show without a script."""

    def formula(match):
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]).strip(), display=display)

    return _FORMULA.sub(formula, content)


def to_markdown(notebook, *, name):
    """The text of a notebook's page, and its pictures by file name."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text'])}\n```")
            elif "image/png" in output["data"]:
                picture = f"{name}_{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![Output of the cell above]({picture})")
            else:
                parts.append(f"```text\n{''.join(output['data']['text/plain'])}\n```")
    return "\n\n".join(parts), pictures
