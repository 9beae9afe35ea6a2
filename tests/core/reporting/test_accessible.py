"""Pages for people who see little, or nothing, or use no mouse."""

import itertools
import re

import pytest
from pages import SCHEMES, Accessible, contrast, style, style_colours

INKS = ("ink", "ink-soft", "accent", "alarm", "good")
GROUNDS = ("page", "card")
WASHES = (("ink", "alarm-wash"), ("alarm", "alarm-wash"))
"""What else is written on what."""
SHAPES = (
    ("accent", "card"),
    ("accent", "accent-wash"),
    ("alarm", "card"),
    ("alarm", "line"),
    ("ink-soft", "card"),
)
"""Shapes and what is beside them: bars, marks, outlines and frames of fields."""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_has_the_contrast_that_people_need(scheme: str) -> None:
    colours = style_colours(scheme)
    ratios = {
        (ink, ground): contrast(colours[ink], colours[ground])
        for ink, ground in (*itertools.product(INKS, GROUNDS), *WASHES)
    }

    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_shapes_have_the_contrast_that_people_need(scheme: str) -> None:
    colours = style_colours(scheme)
    ratios = {(one, two): contrast(colours[one], colours[two]) for one, two in SHAPES}

    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 3} == {}


def test_text_has_no_colour_whose_contrast_is_not_checked() -> None:
    colours = set(re.findall(r"(?<![-a-z])color: ([^;}]+)", style()))
    grounds = set(re.findall(r"background: ([^;}]+)", style()))

    assert colours <= {f"var(--{ink})" for ink in INKS} | {"inherit"}
    assert {one for one in grounds if not one.startswith("linear-gradient")} <= {
        "none",
        *(f"var(--{ground})" for ground in (*GROUNDS, "alarm-wash")),
    }


def test_nothing_is_faded_until_it_cannot_be_seen() -> None:
    faded = [float(one) for one in re.findall(r"opacity: ([\d.]+)", style())]

    for scheme, share in itertools.product(SCHEMES, faded):
        colours = style_colours(scheme)
        ink, card = (
            [int(colours[name][at : at + 2], 16) for at in (1, 3, 5)]
            for name in ("ink-soft", "card")
        )
        mixed = [round(share * one + (1 - share) * two) for one, two in zip(ink, card, strict=True)]
        seen = "#" + "".join(f"{part:02x}" for part in mixed)
        assert contrast(seen, colours["card"]) >= 3, (scheme, share)


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("<html></html>", "the page has no language"),
        ("<table><tr><th>Target</th></tr></table>", "a header has no scope"),
        ('<svg aria-label="weights"></svg>', "a picture has no text"),
        ('<svg role="img"></svg>', "a picture has no text"),
        ('<input id="search">', "a field has no label before it"),
        ('<div tabindex="0"></div>', "a div that scrolls has no name"),
        ("<h1>Run</h1><h3>Skipped</h3>", "h3 follows h1"),
        ("<img src='x'>", "an img has no text"),
        ("<table></table>", "a table has no headers"),
        ("<button></button>", "a button says nothing"),
    ],
)
def test_what_is_missing_on_a_page_is_found(page: str, fault: str) -> None:
    parser = Accessible()

    parser.feed(page)
    parser.close()

    assert parser.faults == [fault]
