"""What the console script calls: it runs the command line, or says how to install it."""

from __future__ import annotations

import sys

from tersely.errors import MissingExtraError

_FAILED = 1


def main() -> None:
    """Run the command line and exit."""
    try:
        from tersely.cli.main import main as run  # it needs click, which is an extra
    except MissingExtraError as error:
        print(f"tersely: {error}", file=sys.stderr)
        sys.exit(_FAILED)
    run()
