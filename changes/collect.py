"""Move the notes of this folder to the changelog, under a release.

python changes/collect.py VERSION
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
CHANGELOG = FOLDER.parent / "docs" / "changelog.md"


def notes(folder: Path) -> list[Path]:
    """Return the notes in the order of their names.

    Args:
        folder: where they are.
    """
    return [file for file in sorted(folder.glob("*.md")) if file.name != "README.md"]


def released(changelog: str, version: str, texts: Sequence[str]) -> str:
    """Return the changelog with notes at the end of a release, which is begun where it is missing.

    Args:
        changelog: as it is.
        version: the release.
        texts: the notes.
    """
    heading = f"## {version}\n"
    if f"\n{heading}" not in changelog:
        opening, mark, rest = changelog.partition("\n## ")
        changelog = f"{opening}\n{heading}\n{mark}{rest}" if mark else f"{opening}\n{heading}\n"
    before, _, after = changelog.partition(f"\n{heading}")
    own, mark, older = after.partition("\n## ")
    parts = [one.strip("\n") for one in (own, *texts)]
    lines = "\n".join(part for part in parts if part)
    return f"{before}\n{heading}\n{lines}\n{mark}{older}"


def main(arguments: Sequence[str]) -> None:
    """Write the changelog, and remove the notes."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    found = notes(FOLDER)
    texts = [file.read_text(encoding="utf-8") for file in found]
    text = released(CHANGELOG.read_text(encoding="utf-8"), arguments[0], texts)
    CHANGELOG.write_text(text, encoding="utf-8")
    for file in found:
        file.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
