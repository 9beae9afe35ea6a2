"""``tersely plugins check``: runs the contract checks that plugin authors run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tersely.cli.options.plugin_files import plugin_option
from tersely.cli.plugins.find import KIND_NAMES, find_names, find_plugins, provided_by, unknown
from tersely.errors import BrokenPluginError, PluginError, UnknownPluginError
from tersely.registry.kinds import Kind
from tersely.registry.record import Registration
from tersely.registry.registry import Registry, registry

if TYPE_CHECKING:
    from tersely.testing import CheckResult, Contract


@click.command("check")
@click.argument("name")
@click.option("--kind", "kind_name", type=click.Choice(KIND_NAMES), help="Check only this kind.")
@plugin_option
@click.pass_context
def check_plugin(context: click.Context, name: str, kind_name: str | None) -> None:
    """Check that NAME meets its contract, or that everything a distribution NAME provides does."""
    installed = registry()
    found = find_names(installed, name, kind_name=kind_name) or provided_by(installed, name)
    if not found:
        raise _nothing_to_check(installed, name)
    from tersely.testing.by_kind import CONTRACTS  # late: contracts import torch

    failures = total = 0
    for kind, registration in found:
        if kind.name not in CONTRACTS:
            click.echo(f"{kind.name} {registration.qualified}: no contract to check yet")
            continue
        results = _check(installed, kind, registration, contract=CONTRACTS[kind.name])
        failures += sum(not result.passed for result in results)
        total += len(results)
    click.echo(f"{total - failures} of {total} checks passed")
    context.exit(1 if failures else 0)


def _nothing_to_check(installed: Registry, name: str) -> PluginError:
    for record in find_plugins(installed, name):
        if record.state != "ok":
            return BrokenPluginError(
                f"{record.title} is {record.state}: {record.reason}",
                plugin=record.name,
                distribution=record.distribution,
            )
        return UnknownPluginError(
            f"{record.title} provides nothing that has a contract",
            plugin=record.name,
            distribution=record.distribution,
        )
    return unknown(installed, name)


def _check(
    installed: Registry, kind: Kind, registration: Registration, *, contract: type[Contract]
) -> tuple[CheckResult, ...]:
    from tersely.testing import contract_results  # late: it imports torch

    short = registration.descriptor.name
    is_clear = short in getattr(installed, kind.catalog)
    results = contract_results(contract(short if is_clear else registration.qualified))
    click.echo(f"{kind.name} {registration.qualified}")
    for result in results:
        mark = click.style("pass", fg="green") if result.passed else click.style("FAIL", fg="red")
        click.echo(f"  {mark}  {result.name}")
        for line in result.message.splitlines():
            click.echo(f"        {line}")
    return results
