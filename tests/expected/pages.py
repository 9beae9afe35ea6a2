"""What the tests of pages look for in HTML."""

import re
from html.parser import HTMLParser
from importlib import resources

VOID = {"meta", "br", "wbr", "use", "path", "img", "link", "input"}


class Balance(HTMLParser):
    """Notes the ids, and the tags that are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.crossed: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attributes if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attributes if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)


class Accessible(HTMLParser):
    """Notes what people who do not see a page, or use no mouse, would miss on it.

    Attributes:
        faults: what is wrong, in words.
        seen: the tags there are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.seen: set[str] = set()
        self._labels: set[str] = set()
        self._level = 0
        self._headers = 0
        self._said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.seen.add(tag)
        if tag == "html" and not values.get("lang"):
            self.faults.append("the page has no language")
        if tag == "th" and values.get("scope") not in ("col", "row", "rowgroup"):
            self.faults.append("a header has no scope")
        if tag == "svg" and not (values.get("role") == "img" and values.get("aria-label")):
            self.faults.append("a picture has no text")
        if tag == "img" and not values.get("alt"):
            self.faults.append("an img has no text")
        if tag == "table":
            self._headers = 0
        if tag == "th":
            self._headers += 1
        if tag == "button":
            self._said = str(values.get("aria-label") or "")
        if tag == "label":
            self._labels.add(str(values.get("for")))
        if tag == "input" and values.get("id") not in self._labels:
            self.faults.append("a field has no label before it")
        if "tabindex" in values and not (values.get("aria-labelledby") and values.get("role")):
            self.faults.append(f"a {tag} that scrolls has no name")
        if tag in ("h1", "h2", "h3"):
            level = int(tag[1])
            if level > self._level + 1:
                self.faults.append(f"{tag} follows h{self._level}")
            self._level = level

    def handle_data(self, data: str) -> None:
        self._said += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and not self._headers:
            self.faults.append("a table has no headers")
        if tag == "button" and not self._said:
            self.faults.append("a button says nothing")


SCHEMES = ("light", "dark", "print")
"""The colour schemes of a page, in the order of the style sheet."""


def style() -> str:
    """Return the style sheet of a page."""
    return resources.files("tersely.reporting.page").joinpath("page.css").read_text("utf-8")


def style_colours(scheme: str) -> dict[str, str]:
    """Return the colours of a page by name, as ``#rrggbb``.

    Args:
        scheme: one of `SCHEMES`.
    """
    part = style().split(":root {")[1 + SCHEMES.index(scheme)].split("}")[0]
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})\b", part))
    return {
        name: colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
        for name, colour in found.items()
    }


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2.1 defines it.

    Args:
        one: a colour as ``#rrggbb``.
        other: another one.
    """
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
