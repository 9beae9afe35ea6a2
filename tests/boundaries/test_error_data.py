"""What an error names in its text it also carries as data, in every place that raises it."""

import ast
import inspect
import re
from collections.abc import Iterator

from tersely import errors

CARRYING = {
    name
    for name, cls in vars(errors).items()
    if inspect.isclass(cls)
    and issubclass(cls, (errors.PlacedError, errors.PluginError, errors.SessionFileError))
} | {"UnreachedError"}

PLACED = {
    name
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, errors.PlacedError)
}

STRICT = ("instrument", "jobs", "planning", "storage")
"""Parts whose errors concern a target, a file or a plugin, but for those below."""

CONCERN_THE_WHOLE = {
    ("planning.comparing", "{change}; plan again, or undo the change"),
    ("planning.encoding", "expected a plan of format"),
    ("planning.encoding", "the plan's data is damaged"),
    ("planning.fusing.foldable_chains", "the model does not run"),
    ("planning.groups.channel_ties", ""),
    ("planning.resolve", "the {role} must be a torch.nn.Module"),
    ("planning.stages.draft", ""),
}
"""Module and start of the text of errors about a whole plan or model, or about several targets."""

NAMED = re.compile(
    r"\{(.*\.)?(plan\.name|full_name\(.*\)|target\.name|place|folder|directory|index|title)\}"
)
"""A target, file or plugin in the text of an error."""


def _errors(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in CARRYING:
            yield node


def _text(call: ast.Call) -> str:
    """The text that a call spells out, with what it fills in in braces."""
    strings = [one for one in ast.walk(call) if isinstance(one, ast.JoinedStr)]
    if strings:
        return re.sub(r"^f(['\"])(.*)\1$", r"\2", ast.unparse(strings[0]), flags=re.DOTALL)
    return next((one.value for one in ast.walk(call) if _is_text(one)), "")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_an_error_that_names_a_target_a_file_or_a_plugin_carries_it(core):
    found = [
        f"{source.path}:{call.lineno}: {_text(call)}"
        for source in core
        for call in _errors(source.tree)
        if not call.keywords and NAMED.search(_text(call))
    ]
    assert found == []


def test_an_error_that_has_a_plan_at_hand_carries_its_entry_and_algorithm_too(core):
    """``**plan.place`` rather than ``target=plan.name``; a PluginError and a file have no entry."""
    found = [
        f"{source.path}:{call.lineno}: {ast.unparse(word.value)}"
        for source in core
        for call in _errors(source.tree)
        if call.func.id in PLACED
        for word in call.keywords
        if word.arg == "target" and ast.unparse(word.value).endswith("plan.name")
    ]
    assert found == []


def test_errors_of_plans_models_files_and_jobs_carry_data(core):
    bare = {
        (source.module.removeprefix("tersely."), _text(call))
        for source in core
        if source.module.split(".")[1:2] and source.module.split(".")[1] in STRICT
        for call in _errors(source.tree)
        if not call.keywords
    }
    unknown = {
        (module, text)
        for module, text in bare
        if not any(
            module == known and text.startswith(start) if start else (module, text) == (known, "")
            for known, start in CONCERN_THE_WHOLE
        )
    }
    assert unknown == set()


def test_every_exception_to_that_is_still_there(core):
    said = [
        (source.module.removeprefix("tersely."), _text(call))
        for source in core
        for call in _errors(source.tree)
        if not call.keywords
    ]
    gone = {
        one
        for one in CONCERN_THE_WHOLE
        if not any(module == one[0] and text.startswith(one[1]) for module, text in said)
    }
    assert gone == set()
