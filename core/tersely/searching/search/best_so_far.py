"""What a search prints and writes while it runs: the best so far, and a job that uses it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import yaml

from tersely.document.job import Job
from tersely.jobs.progress.displays import Display
from tersely.json_value import Json
from tersely.searching.chosen_recipes import chosen_recipe
from tersely.searching.costs.costing import is_structured
from tersely.searching.costs.latency_entries import LATENCY
from tersely.searching.search.result import SearchResult
from tersely.searching.search.search import Search
from tersely.searching.sensitivity.job import beside
from tersely.searching.trials.claims import Claim
from tersely.searching.trials.sampling import Setting
from tersely.searching.trials.study import Tried
from tersely.storage.durable import write_whole

RECIPE, FOUND = "recipe.yaml", "search.json"


@attrs.define(eq=False)
class BestSoFar:
    """Writes the best so far whenever it improves; mutable, since it remembers the last one."""

    job: Job
    search: Search
    trials: int
    folder: Path
    display: Display
    tell: Callable[[int, int], object]
    _best: Tried | None = None
    _awaited: str = ""

    def look(self, tried: tuple[Tried, ...]) -> None:
        """Report the number of trials, and write and print the best if it has changed."""
        self.tell(len(tried), self.trials)
        result = self.result(tried)
        best = result.best
        if best is not None and best != self._best:
            self._best = best
            said = "predicted " if result.is_predicted(best) else ""
            self.display.line(
                f"  trial {tried.index(best) + 1}: {said}{result.objective} "
                f"{result.cost_of(best):.4f}, loss {best.drop:.2f} %"
            )
            self.write(tried)

    def wait(self, claims: tuple[Claim, ...]) -> None:
        """Print once which processes' trials are awaited.

        Args:
            claims: the settings that other processes are trying.
        """
        seen = sorted({str(one) for one in claims if one.is_seen})
        unseen = sorted({str(one) for one in claims if not one.is_seen})
        said = ""
        if seen:
            said = f"  waiting for the last trials of {', '.join(seen)}"
        elif unseen:
            said = (
                f"  the last trials are those of {', '.join(unseen)}, which cannot be seen from "
                "here; the same command shows them later, and more --trials try others"
            )
        if said != self._awaited:
            self._awaited = said
            self.display.line(said, style="yellow")

    def tell_interrupted(self) -> None:
        """Write and print the best so far, after an interruption."""
        tried = self.search.store.tried()
        result = self.write(tried)
        if tried:
            self.display.line(str(result))
        if result.recipe is not None:
            self.display.line(f"  the best so far is in {self.folder}", style="yellow")

    def result(self, tried: tuple[Tried, ...]) -> SearchResult:
        """Return the trials as a result."""
        search = self.search
        result = SearchResult(
            objective=search.costing.objective,
            quality=search.quality.name,
            max_drop=search.max_drop,
            trials=tried,
            units={unit.key: ("dense", *map(str, unit.levels)) for unit in search.units},
            recipe=None,
            measured=self._measured(tried),
            latencies={} if search.latencies is None else search.store.rows(LATENCY),
        )
        if result.best is None:
            return result
        choices = search.choices(result.best.setting)
        plan = search.plan
        shrinking = {target.stage for target in plan if is_structured(target)}
        recipe = chosen_recipe(plan.recipe, choices, shrinking=shrinking)
        return attrs.evolve(result, recipe=recipe)

    def _measured(self, tried: tuple[Tried, ...]) -> dict[Setting, float]:
        if self.search.latencies is None:
            return {}
        found = {one.setting: self.search.measured(one.setting) for one in tried}
        return {setting: cost for setting, cost in found.items() if cost is not None}

    def write(self, tried: tuple[Tried, ...]) -> SearchResult:
        """Write the trials and the best recipe, and return them."""
        result = self.result(tried)
        write_whole(self.folder / FOUND, json.dumps(result.to_dict(), indent=2) + "\n")
        if result.recipe is not None:
            write_whole(self.folder / RECIPE, _yaml(result.recipe))
            found = _yaml(_found_job(self.job, self.folder))
            write_whole(found_job_file(self.job, self.folder), found)
        return result


def found_job_file(job: Job, folder: Path) -> Path:
    """Return the place of the job that runs the best recipe: next to the searched job.

    References of a job are relative to its folder.

    Args:
        job: the searched job.
        folder: the folder of the search.
    """
    stem = Path(job.source).stem if job.source else "job"
    ending = "found" if folder == beside(job, "search") else folder.name
    return job.directory / f"{stem}-{ending}.yaml"


def _found_job(job: Job, folder: Path) -> dict[str, Json]:
    output = f"{str(job.document['output']).rstrip('/')}-found"
    try:
        recipe = Path(os.path.relpath(folder / RECIPE, job.directory)).as_posix()
    except ValueError:  # another drive
        recipe = str(folder / RECIPE)
    return {**job.document, "recipe": recipe, "output": output}


def _yaml(data: Json) -> str:
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None))
