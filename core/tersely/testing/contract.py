"""Contracts: named checks of one plugin object, run one by one and reported together."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import ClassVar, Literal

import attrs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tersely.errors import CalibrationError, PluginError, TerselyError
from tersely.json_value import Json
from tersely.planning.stages.algorithms import make_pruner, make_quantizer
from tersely.registry.catalog import Catalog
from tersely.registry.descriptors import Descriptor
from tersely.registry.hookspecs import ENTRY_POINT_GROUP
from tersely.registry.registry import registry
from tersely.testing.option_checks import (
    default_problem,
    interruption_problem,
    unread_problem,
)
from tersely.testing.untouched.process_state import CHANGED_ENVIRONMENT, watched_process

Kind = Literal["pruners", "quantizers", "granularities", "losses", "schedules", "exporters"]


_MAKERS: Mapping[str, Callable[[str, Mapping[str, Json]], object]] = {
    "pruners": make_pruner,
    "quantizers": make_quantizer,
}


class ContractError(TerselyError, AssertionError):
    """A plugin breaks its contract; the text lists every check that failed."""


@attrs.frozen
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: what was checked, as a sentence.
        passed: whether it holds.
        message: why it does not; empty when it holds.
    """

    name: str
    passed: bool
    message: str = ""


@attrs.define(eq=False)
class Contract:
    """What every kind of plugin must meet. Subclasses add ``check_*`` methods.

    A test suite may also subclass it and call individual checks.

    Attributes:
        name: the plugin object's name in the registry.
        options: options to make it with; when empty, the first example of its options schema.
    """

    kind: ClassVar[Kind]

    name: str
    options: Mapping[str, Json] = attrs.field(factory=dict)

    @property
    def catalog(self) -> Catalog[Descriptor]:
        """Where the object is registered."""
        found: Catalog[Descriptor] = getattr(registry(), self.kind)
        return found

    @property
    def info(self) -> Descriptor:
        """The object's descriptor."""
        return self.catalog.info(self.name)

    @property
    def arguments(self) -> Mapping[str, Json]:
        """The options, or the first example of the schema when none were given."""
        examples: Sequence[Mapping[str, Json]] = self.info.options.get("examples") or ({},)
        return self.options or examples[0]

    def make(self) -> Json:
        """Return a new object, made with the options."""
        make = _MAKERS.get(self.kind)
        if make is not None:
            return make(self.name, self.arguments)
        return self.catalog[self.name](**self.arguments)

    def check_summary(self) -> None:
        """The descriptor has a one-line summary."""
        expect(bool(self.info.summary.strip()), "the descriptor's summary is empty")
        expect("\n" not in self.info.summary, "the descriptor's summary has several lines")

    def check_options_schema(self) -> None:
        """The options schema is a closed JSON Schema that accepts the options under test."""
        check_schema(self.info.options)
        errors = Draft202012Validator(self.info.options).iter_errors(dict(self.arguments))
        found = "; ".join(error.message for error in errors)
        expect(not found, f"the options schema rejects {dict(self.arguments)}: {found}")

    def check_examples(self) -> None:
        """Every example of the options schema is valid and creates the object."""
        for example in self.info.options.get("examples", ()):
            errors = Draft202012Validator(self.info.options).iter_errors(dict(example))
            found = "; ".join(error.message for error in errors)
            expect(
                not found, f"the options schema rejects its own example {dict(example)}: {found}"
            )
            attrs.evolve(self, options=example).make_example()

    def make_example(self) -> None:
        """Make the object with the options, to see whether it accepts them."""
        self.make()

    def check_options_in_code(self) -> None:
        """The code reads every option and has the same defaults as the options schema."""
        found = unread_problem(self.catalog[self.name], self.info.options)
        expect(not found, found)
        found = default_problem(self.catalog[self.name], self.info.options)
        expect(not found, found)

    def check_interruptible(self) -> None:
        """The code does not catch KeyboardInterrupt."""
        found = interruption_problem(self.catalog[self.name])
        expect(not found, found)

    def check_process(self) -> None:
        """Using it prints nothing and changes neither its options nor process-wide settings."""
        arguments = copy.deepcopy(dict(self.arguments))
        with watched_process() as found:
            self.use()
        if found == [CHANGED_ENVIRONMENT]:
            # A library imported lazily may set a variable once.
            with watched_process() as found:
                self.use()
        expect(not found, "; ".join(found))
        expect(arguments == self.arguments, f"its options were changed to {dict(self.arguments)}")

    def use(self) -> None:
        """Use the object once for its purpose."""
        self.make()

    def check_face_imports_no_torch(self) -> None:
        """Importing the package that registers the object does not import torch."""
        if self.catalog.record(self.name).module is not None:
            return  # a plugin file runs only when it is named, so it may import anything
        face = self._face()
        code = f"import {face}, sys; sys.exit({_TORCH} if 'torch' in sys.modules else 0)"
        # Both the interpreter and the code are trusted: they run the tests already.
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        expect(
            done.returncode in (0, _TORCH),
            f"importing {face} fails in a new process:\n{done.stderr.strip()}",
        )
        expect(
            done.returncode != _TORCH,
            f"importing {face} imports torch; import torch in the algorithm's module only, so that "
            "listing and validation stay fast",
        )

    def _face(self) -> str:
        # An object registered by hand belongs to no distribution: its own package is its face.
        try:
            announcing = metadata.distribution(self.catalog.record(self.name).distribution)
        except metadata.PackageNotFoundError:
            return self.info.implementation.partition(":")[0].partition(".")[0]
        entries = announcing.entry_points.select(group=ENTRY_POINT_GROUP)
        return ", ".join(entry.module for entry in entries)


_TORCH = 3  # exit status of the new process when torch was imported


def check_schema(schema: Mapping[str, Json]) -> None:
    """Check that options are described by a closed JSON Schema.

    Args:
        schema: a descriptor's ``options``.

    Raises:
        ContractError: it is not a valid JSON Schema, or it accepts unknown keys.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ContractError(
            f"options is not a valid JSON Schema (2020-12): {error.message}"
        ) from error
    is_closed = False in (schema.get("additionalProperties"), schema.get("unevaluatedProperties"))
    expect(
        is_closed,
        "options accepts unknown keys, so a misspelled option would be ignored silently; set "
        "additionalProperties to false",
    )


def expect(condition: bool, message: str) -> None:  # reads as assert does
    """Raise ContractError with a message unless a condition holds.

    Args:
        condition: what must hold.
        message: what is wrong when it does not.
    """
    if not condition:
        raise ContractError(message)


def contract_results(contract: Contract) -> tuple[CheckResult, ...]:
    """Run every check of a contract.

    Args:
        contract: the contract of one object.

    Returns:
        One result for each check, in the order of their definition.
    """
    return tuple(_run(contract, name) for name in check_names(type(contract)))


def check_names(cls: type[Contract]) -> Sequence[str]:
    """Return the names of all checks of a contract, those of its bases first.

    Args:
        cls: the contract.
    """
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        names.update(dict.fromkeys(name for name in vars(base) if name.startswith("check_")))
    return list(names)


def _run(contract: Contract, name: str) -> CheckResult:
    check = getattr(contract, name)
    title = (inspect.getdoc(check) or name).partition("\n")[0].rstrip(".")
    try:
        check()
    except ContractError as error:
        return CheckResult(title, passed=False, message=str(error))
    except Exception as error:  # foreign code: any exception is a finding
        return CheckResult(title, passed=False, message=f"{type(error).__name__}: {error}")
    return CheckResult(title, passed=True)


def require(contract: Contract) -> None:
    """Run every check of a contract and raise when one fails.

    Args:
        contract: the contract of one object.

    Raises:
        ContractError: lists every check that failed.
        PluginError: no plugin provides the name.
    """
    contract.catalog.info(contract.name)
    failed = [result for result in contract_results(contract) if not result.passed]
    if failed:
        lines = [f"{contract.name} fails {len(failed)} checks of its contract:"]
        lines += [f"  {result.name}: {result.message}" for result in failed]
        raise ContractError("\n".join(lines))


@contextmanager
def as_findings() -> Iterator[None]:
    """Report the core's own errors about a plugin as findings of its contract.

    Raises:
        ContractError: the core refuses what the plugin returned.
    """
    try:
        yield
    except (PluginError, CalibrationError) as error:
        raise ContractError(str(error)) from error
