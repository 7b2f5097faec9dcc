"""HTML as text that cannot be mistaken for it: whatever is not `Markup` is escaped."""

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """A text that is HTML already. Only the functions of this package make one."""

    __slots__ = ()


def tag(name: str, *content: str, **attributes: str | float | bool | None) -> Markup:
    """One element; content that is not `Markup` is escaped, and so are all attributes.

    Args:
        name: Of the element.
        content: What is in it.
        attributes: Their names without the final underscore of `class_`, and with `-` for other
            underscores; None and False leave one out, True gives it no value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    if name in ("img", "source"):
        return Markup(start)
    return Markup(f"{start}{join(content)}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Parts one after the other, each escaped unless it is `Markup`."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(p) for p in parts))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table with a caption; the first cell of a row is its heading.

    Columns whose cells are numbers are aligned at the right. A wide table scrolls by itself.

    Args:
        caption: What the table shows.
        head: Names of the columns.
        rows: Cells, as many as columns.
    """
    rows = list(rows)
    numeric = [all(_is_number(row[c]) for row in rows) for c in range(len(head))]
    kinds = ["number" if is_numeric else None for is_numeric in numeric]

    def cell(column: int, text: str) -> Markup:
        if column == 0:
            return tag("th", text, scope="row", class_=kinds[column])
        return tag("td", text, class_=kinds[column])

    titles = [tag("th", t, scope="col", class_=k) for t, k in zip(head, kinds, strict=True)]
    body = [tag("tr", *(cell(c, text) for c, text in enumerate(row))) for row in rows]
    content = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *titles)),
        tag("tbody", *body),
    )
    return tag(
        "div", content, class_="scroll", tabindex="0", role="region", aria_label=caption or None
    )


def _is_number(text: str) -> bool:
    """Whether a cell holds a number, a number with its deviation or unit, or stands empty."""
    first = text.strip().partition(" ")[0].replace(",", "").rstrip("%")
    try:
        float(first)
    except ValueError:
        return text.strip() in ("", "-")
    return True


def code(text: str) -> Markup:
    """A genotype or a path, which may break after its separators."""
    escaped = html.escape(text)
    for separator in "|,/":
        escaped = escaped.replace(separator, f"{separator}<wbr>")
    return Markup(f"<code>{escaped}</code>")


def facts(rows: Iterable[tuple[str, str]]) -> Markup:
    """Names and values, as a list of descriptions."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows),
        class_="facts",
    )


def section(title: str, *content: str) -> Markup:
    """A part of a run's page."""
    return tag("section", tag("h3", title), *content)


def page(title: str, style: str, *content: str) -> str:
    """The whole file. Its policy forbids scripts and all that would have to be fetched."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', tag('main', *content)), lang='en')}\n"
