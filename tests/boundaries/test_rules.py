"""Code, tests and pages cite only rules that the specification has."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"\brules? ([BDGOQRST]\d[\d.]*(?:(?:, | and | to | or )[BDGOQRST]\d[\d.]*)*)")


def _known():
    text = (ROOT / "spec" / "README.md").read_text(encoding="utf-8")
    rules = re.findall(r"^- \*\*([A-Z]\d\.\d+)\*\* ", text, flags=re.MULTILINE)
    return {*rules, *(rule.partition(".")[0] for rule in rules)}


def _cited(text):
    for names in CITED.findall(text):
        yield from (name.rstrip(".") for name in re.split(", | and | to | or ", names))


def test_rules_are_recognized_in_prose():
    text = "see rule B4.2. Then (rules Q3, Q4.5 and O1), rule of thumb, rules G1 to G4."

    assert list(_cited(text)) == ["B4.2", "Q3", "Q4.5", "O1", "G1", "G4"]


def test_every_cited_rule_exists():
    files = [
        file
        for folder, ending in (("core", "py"), ("plugins", "py"), ("tests", "py"), ("docs", "md"))
        for file in sorted((ROOT / folder).rglob(f"*.{ending}"))
        if file.name not in ("changelog.md", Path(__file__).name)
    ]
    cited = [
        (file.relative_to(ROOT).as_posix(), rule)
        for file in files
        for rule in _cited(file.read_text(encoding="utf-8"))
    ]
    known = _known()

    assert len(cited) > 100
    assert [(file, rule) for file, rule in cited if rule not in known] == []
