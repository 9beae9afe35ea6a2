"""Wrong recipes, config lists and jobs, and what to write instead."""

STRINGS_EXPECTED = "expected a list of strings"
INTEGER_DTYPES = "int2 to int16, uint1 to uint16"
NO_KEYS = "no keys are allowed here"
ONLY_ONE = "expected only one of them"
EMPTY_FILE = "the file is empty, expected a document"
SCHEDULE_INSTEAD = "write a schedule with begin, every and times in the pruning stage"
OPTIONS_INSTEAD = "give it to the algorithm, in the options of the quantization stage"
NOT_IN_CONFIG_LISTS = "has no meaning in a config list of this specification"
IN_A_JOB = "write it in a job, next to 'recipe'"
LIST_OF_MAPPINGS = "write a list: begin the mapping with '- '"
LOSS_IN_ENTRIES = "a loss is written in each entry: apply_method:"
IN_AN_ENTRY = "in an entry of 'config_list'"
NO_SUCH_FILE = "there is no such file"
RECIPE_FILE = "expected a recipe file: there is no file"
RELATIVE_TO_JOB = "(the path is relative to the job's own folder)"
NO_TRAINING = "but the job has neither 'train' nor 'loop'"
WRITE_A_LOOP = "write loop: {epochs: ..., lr: ..., loss: ...}"
KEY_IN_QUOTES = "property name enclosed in double quotes"


def at_least(least: int) -> str:
    """An integer with a lower bound."""
    return f"an integer of at least {least}"


def list_of_at_least(least: int, items: str) -> str:
    """A list with the fewest items that it may have."""
    return f"a list of at least {least} {items}"


def number_above(bound: int) -> str:
    """A number with a lower bound that it may not have."""
    return f"expected a number above {bound}"


def nested(how: str) -> str:
    """Lists in lists in lists."""
    return f"mappings and lists are nested {how}"


def given_twice(line: int) -> str:
    """A key that a mapping has twice."""
    return f"is given twice, first on line {line}"


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


def without_stages() -> str:
    """A recipe that names no stage."""
    return "a recipe needs at least one of pruning, quantization, distillation or stages"


def _in_brackets(hint: str) -> str:
    return f" ({hint})" if hint else ""
