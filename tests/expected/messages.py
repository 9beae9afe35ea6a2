"""The table of messages: how errors are worded, for every test that compares them exactly.

A wording that two tests compare stands here once, as a function of what varies; rewording it is
one change. pytest has this folder on its path: ``from messages import found``.
"""


def found(value: str, expected: str, hint: str = "") -> str:
    """A value of the wrong kind: ``found 3, expected a list (write a list: [3])``."""
    return f"found {value}, expected {expected}{_in_brackets(hint)}"


def unknown_key(key: str, where: str = "", hint: str = "") -> str:
    """A key that nothing has."""
    return f"unknown key {key!r}{f' in {where}' if where else ''}{_in_brackets(hint)}"


def misplaced_key(key: str, owner: str, here: str, hint: str) -> str:
    """A key of another mapping."""
    return f"{key!r} is a key of {owner}, not of {here}{_in_brackets(hint)}"


def did_you_mean(*names: str) -> str:
    """The nearest names, as a hint."""
    return f"did you mean {' or '.join(map(repr, names))}?"


def migrated(hint: str) -> str:
    """What to write for a key of NNI, where `tersely migrate` writes it."""
    return f"{hint}; `tersely migrate` rewrites the list"


def inputs_make_singular() -> str:
    """The products of inputs cannot be inverted."""
    return (
        "the Gram matrix of its inputs is singular and cannot be inverted; calibrate with more "
        "batches or raise percdamp"
    )


def options_are_open() -> str:
    """A descriptor's options accept anything."""
    return (
        "options accepts unknown keys, so a misspelled option would be ignored silently; set "
        "additionalProperties to false"
    )


def no_report(folder: object) -> str:
    """``tersely report`` of a folder that holds no finished run."""
    return f"{folder} does not exist; give the output folder of a finished `tersely run`"


def no_finished_run(folder: object, found: str) -> str:
    """What is asked of a finished run, of a folder that holds none."""
    return f"{folder} {found}; give the output folder of a finished `tersely run`"


def goes_on_after(*parts: str) -> str:
    """What a resumed job prints first."""
    return f"continuing after: {', '.join(parts)}\n"


def without_resume() -> str:
    """What to do about a checkpoint that cannot be used."""
    return "run the job again without --resume"


def unfit_checkpoint() -> str:
    """A checkpoint of another model than the one that the job builds."""
    return "does not fit the model that the job builds now"


def without_stages() -> str:
    """A recipe that names no stage."""
    return "a recipe needs at least one of pruning, quantization, distillation or stages"


def _in_brackets(hint: str) -> str:
    return f" ({hint})" if hint else ""
