"""Faces that do what no face should: each is named in the listing, and hurts nobody else."""

import builtins
import json
import logging
import os
import random
import signal
import sys
import textwrap
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from messages.plugins import NO_API

import tersely
from tersely.cli.plugins.list import rows_of

GOOD = """
import tersely

tersely_api = 1


@tersely.hookimpl
def tersely_pruners():
    return [tersely.PrunerInfo(name="good", implementation="json:loads", summary="Good.")]
"""
HAS_TORCH = find_spec("torch") is not None

HOOK = "@tersely.hookimpl\ndef tersely_pruners():\n    return []\n"


def described(head="", info="", arguments=""):
    """Return a face whose one pruner is made by ``info``, after ``head``."""
    made = info or f"tersely.PrunerInfo(name='bad', implementation='a:b', {arguments})"
    return f"{head}\n@tersely.hookimpl\ndef tersely_pruners():\n    return [{made}]\n"


HOSTILE = {
    # What it raises, when and how.
    "leaves the program while it is imported": ("raise SystemExit(3)", "raised SystemExit: 3"),
    "leaves the program in a hook": (
        "@tersely.hookimpl\ndef tersely_pruners():\n    raise SystemExit\n",
        "tersely_pruners() raised SystemExit",
    ),
    "recurses without end": ("def f(): f()\nf()", "raised RecursionError: maximum recursion"),
    "raises what cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
        "raised E",
    ),
    "raises a text that clears the screen": (
        "raise ValueError('\\x1b[2J' + 9_999_999 * 'x')",
        "raised ValueError: [2Jxxxx",
    ),
    "leaves the program when an attribute is read": (
        "def __getattr__(name): raise SystemExit(name)\ndel tersely_api",
        "raised SystemExit: tersely_api",
    ),
    "asks a question": ("input('name? ')", "raised EOFError: EOF when reading a line"),
    "turns warnings into errors and warns": (
        "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('old')",
        "raised UserWarning: old",
    ),
    # What its entry point leads to.
    "is no module but None": ("face = None", NO_API, "bad:face"),
    "is nowhere": ("", "raised AttributeError: module 'bad' has no attribute 'x'", "bad:x"),
    "equals everything": (
        "class Face:\n    tersely_api = 1\n    def __eq__(self, other): return True\nface = Face()",
        "its face bad:face defines its own __eq__; name a module instead",
        "bad:face",
    ),
    "has a metaclass that raises": (
        "class Meta(type):\n    def __getattribute__(cls, name): raise RuntimeError(name)\n"
        "class Face(metaclass=Meta): ...",
        "reading its tersely_api raised RuntimeError: tersely_api",
        "bad:Face",
    ),
    # What it returns.
    "returns a list without end": (
        "class Endless(list):\n    def __iter__(self):\n        while True: yield 1\n"
        "@tersely.hookimpl\ndef tersely_pruners(): return Endless([1])\n",
        "tersely_pruners()[0] is of type int, expected PrunerInfo",
    ),
    "returns what pretends to be a descriptor": (
        "class Fake:\n    __class__ = tersely.PrunerInfo\n" + described(info="Fake()"),
        "tersely_pruners()[0] cannot be used: AttributeError: 'Fake' object has no attribute 'name'",
    ),
    "returns a descriptor that cannot be compared, hashed or shown": (
        described(
            "class Info(tersely.PrunerInfo):\n    def __eq__(self, other): raise RuntimeError\n"
            "    __hash__ = __repr__ = __eq__\n",
            "Info(name='bad', implementation='a:b', summary='Fine.')",
        ),
        "Fine.",
    ),
    "computes the attributes of its descriptor": (
        described(
            "class Info(tersely.PrunerInfo):\n    def __getattribute__(self, name):\n"
            "        raise KeyError(name)\n",
            "object.__new__(Info)",
        ),
        "tersely_pruners()[0] cannot be used: KeyError: 'name'",
    ),
    "has a name of other letters": (
        described(info="tersely.PrunerInfo(name='größe', implementation='a:b')"),
        "name 'größe' must match ^[a-z][a-z0-9_]*$",
    ),
    "has a name that cannot be compared": (
        described(
            "class Name(str):\n    def __eq__(self, other): raise RuntimeError\n"
            "    __hash__ = __eq__\n",
            "tersely.PrunerInfo(name=Name('bad'), implementation='a:b', summary='Fine.')",
        ),
        "Fine.",
    ),
    "has a summary that is no text": (
        described(arguments="summary=7"),
        "PrunerInfo: summary is of type int, expected text",
    ),
    "has a summary that clears the screen": (
        described(arguments="summary='\\x1b[2J\\nFine. [bold]'"),
        "[2J Fine. [bold]",
    ),
    # Its schemas.
    "has a schema that is no JSON": (
        described(arguments="options={'properties': {'a': {'enum': [{1, 2}]}}}"),
        "options/properties/a/enum/0 holds a set, which JSON does not have",
    ),
    "has a schema that contains itself": (
        described("loop = {}\nloop['properties'] = loop", arguments="options=loop"),
        "is nested more than 100 levels deep, or contains itself",
    ),
    "has a schema that is small and grows": (
        described(
            "big = {}\nfor _ in range(60):\n    big = {'a': big, 'b': big}",
            arguments="options=big",
        ),
        "holds more than 100000 values",
    ),
    "has a schema that refers to nothing, deep inside": (
        described(arguments="options={'allOf': [{'items': {'$ref': '#/$defs/a'}}]}"),
        "options of the pruner 'bad' cannot be used: #/allOf/0/items/$ref is '#/$defs/a', which",
    ),
    # What it does to the process.
    "prints and closes standard output": (
        f"import sys\nprint('hello')\nsys.stdout.close()\n{HOOK}",
        "prints",
    ),
    **({"imports torch": (f"import torch\n{HOOK}", "imports torch")} if HAS_TORCH else {}),
    "leaves the folder": (f"import os\nos.chdir('/')\n{HOOK}", "changes the working directory"),
    "changes the environment": (
        f"import os\nos.environ['TERSELY_NO_PLUGINS'] = 'zoo'\n{HOOK}",
        "changes the environment",
    ),
    "empties sys.path": (f"import sys\nsys.path.clear()\n{HOOK}", "changes sys.path"),
    "replaces a module of others": (
        f"import sys\nsys.modules['json'] = None\n{HOOK}",
        "changes imported modules",
    ),
    "replaces a builtin": (
        f"import builtins\nbuiltins.len = None\n{HOOK}",
        "changes builtins",
    ),
    "replaces names of tersely": (
        f"import tersely\ntersely.PrunerInfo = None\n{HOOK}",
        "changes names of tersely",
    ),
    "handles signals": (
        f"import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n{HOOK}",
        "changes signal handlers",
    ),
    "configures logging": (
        f"import logging\nlogging.basicConfig(level='DEBUG')\nlogging.disable()\n{HOOK}",
        "changes logging",
    ),
    "seeds the generator of all": (
        f"import random\nrandom.seed(0)\n{HOOK}",
        "changes the random state",
    ),
    "ignores warnings for all": (
        f"import warnings\nwarnings.simplefilter('ignore')\n{HOOK}",
        "changes the filters of warnings",
    ),
    "limits recursion": (
        f"import sys\nsys.setrecursionlimit(200)\n{HOOK}",
        "changes the recursion limit",
    ),
    "replaces standard error": (
        f"import sys\nsys.stderr = None\n{HOOK}",
        "changes sys.stderr or sys.excepthook",
    ),
    "starts a thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, args=(9,), "
        f"daemon=True).start()\n{HOOK}",
        "starts threads",
    ),
    "takes its time": (f"import time\ntime.sleep(0.2)\n{HOOK}", " ms"),
}


def state_of_the_process():
    return (
        dict(vars(builtins)),
        {name: sys.modules[name] for name in ("json", "os", "tersely")},
        tersely.PrunerInfo,
        Path.cwd(),
        dict(os.environ),
        list(sys.path),
        sys.getrecursionlimit(),
        signal.getsignal(signal.SIGINT),
        (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        random.getstate(),
        list(warnings.filters),
        (sys.stdin, sys.stdout, sys.stderr),
    )


@pytest.fixture(params=HOSTILE, ids=str)
def hostile(request):
    source, named, *value = HOSTILE[request.param]
    return f"import tersely\ntersely_api = 1\n{source}", named, value[0] if value else "bad"


def test_a_hostile_face_is_named_and_hurts_nobody(install, load, hostile):
    source, named, value = hostile
    install("bad", face=textwrap.dedent(source), entry_points=f"[tersely]\nbad = {value}\n")
    install("zoo", face=GOOD)
    if HAS_TORCH:
        import_module("torch")  # so that what a face uses is looked at
    before = state_of_the_process()

    registry = load()

    assert state_of_the_process() == before
    assert registry.pruners["good"] is json.loads
    (row,) = (row for row in rows_of(registry) if row.distribution == "bad")
    assert named in f"{row.loading} {row.summary}"
    assert len(row.summary) < 700
    assert f"{row.loading}{row.summary}".isprintable()


def test_a_library_that_a_face_imports_may_filter_its_own_warnings(install, load):
    filtering = "import warnings\nwarnings.filterwarnings('ignore', message='size changed')\n"
    install("filtering", face=f"import theirs\n{GOOD}", modules={"theirs": filtering})

    with warnings.catch_warnings():
        registry = load()
        warnings.warn("size changed", stacklevel=1)  # it would be an error

    (row,) = (row for row in rows_of(registry) if row.distribution == "filtering")
    assert "warnings" not in f"{row.loading} {row.summary}"
