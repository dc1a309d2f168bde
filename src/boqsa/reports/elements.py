"""Small pieces of HTML: numbers, tables, pictures. All text that comes in as plain text goes out escaped."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

NOT_MEASURED = "not measured"


def document(title: str, parts: Sequence[str], stylesheet: str) -> str:
    """A whole HTML document; `title` is plain text, empty parts are left out."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{stylesheet}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def block(data: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping under `keys`, one inside the other; empty where one is missing or is something else."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def is_measured(value: Any) -> bool:
    """Whether there is a value: not None, not NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def number(value: Any) -> str:
    """A value as people read it: three digits or so, thousands apart; None and NaN are "not measured"."""
    if not is_measured(value):
        return NOT_MEASURED
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isinf(value):
        return "infinite"
    if value and abs(value) < 0.01:
        return f"{value:.3g}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"


def duration(seconds: Any) -> str:
    """Seconds as hours, minutes and seconds."""
    if not is_measured(seconds) or not isinstance(seconds, int | float) or math.isinf(seconds):
        return NOT_MEASURED
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or f"{seconds:.1f} s"


def with_code(text: str) -> str:
    """Escaped text in which `backquoted` pieces are set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def list_of(sentences: Sequence[str]) -> str:
    """A bullet for each sentence; backquoted pieces are set as code."""
    return "<ul>" + "".join(f"<li>{with_code(sentence)}</li>" for sentence in sentences) + "</ul>"


def cell(value: Any, column: str) -> str:
    """A table cell with a number; narrow screens show the name of its column beside it."""
    kind = "number" if is_measured(value) else "number missing"
    return f'<td class="{kind}" data-label="{escape(column)}">{escape(number(value))}</td>'


def row_header(title: str, *explanation: str) -> str:
    """The first cell of a row: its name, and under it in small what it means."""
    small = f"<small>{escape(' '.join(explanation))}</small>" if explanation else ""
    return f'<th scope="row">{escape(title)}{small}</th>'


def table(columns: Sequence[str], rows: Sequence[str]) -> str:
    """A table of compared numbers; `columns` are plain text, `rows` ready cells.

    Narrow screens stack the cells of a row.
    """
    heads = "".join(
        f'<th scope="col"{" class=number" if index else ""}>{escape(column)}</th>'
        for index, column in enumerate(columns)
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="compared"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Mapping[str, str]) -> str:
    """A table of two columns: what, and its value as plain text, set as code where it is backquoted."""
    rows = "".join(f"<tr>{row_header(title)}<td>{with_code(value)}</td></tr>" for title, value in pairs.items())
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'


def image(png: bytes, alternative: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{data}">'


def figure(content: str, caption: str, kind: str = "") -> str:
    """A picture with the sentence under it."""
    return f'<figure class="{kind}">{content}<figcaption>{escape(caption)}</figcaption></figure>'


def section(title: str, *parts: str) -> str:
    """A heading and what is under it; nothing at all if there is nothing under it."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""
