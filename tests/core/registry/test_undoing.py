"""What a face is said to change in the process."""

import subprocess
import sys

FIRST_IMPORT = """
import sys
from tersely.registry.undoing import process_state, undone

assert "logging" not in sys.modules
before = process_state()
with undone(before) as changed:
    import logging
print(changed())
with undone(before) as changed:
    logging.root.setLevel(logging.DEBUG)
print(changed(), logging.root.level)
"""


def test_a_face_that_is_the_first_to_import_logging_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_IMPORT], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["()", "('changes logging',) 30"]
