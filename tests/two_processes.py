"""What workers share that run as two gloo processes, ``worker.py FOLDER``.

All scenarios of a worker share one pair of processes, because starting one takes longer than
running them. The pair is forked from a process that has imported what both need. The marker
``worker`` of the conftest beside this file starts it.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
from torch import distributed

WORLD = 2
SCENARIOS: list[Callable[..., None]] = []


def scenario(function: Callable[..., None]) -> Callable[..., None]:
    """Have a function run in both processes, with its rank and, if it asks, a folder."""
    SCENARIOS.append(function)
    return function


def run(function: Callable[..., None], rank: int, folder: Path) -> str:
    arguments = (rank, folder) if function.__code__.co_argcount > 1 else (rank,)
    try:
        function(*arguments)
    except Exception:
        return traceback.format_exc()
    return "ok"


def main() -> None:
    """Run every scenario in both processes; each writes what came."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    running = []
    for rank in range(WORLD):
        process = os.fork()
        if process == 0:
            _work(rank, folder)
        running.append(process)
    while running:
        process, status = os.wait()
        running.remove(process)
        if status:  # the other may wait for this one inside a collective
            for other in running:
                os.kill(other, signal.SIGKILL)


def _work(rank: int, folder: Path) -> NoReturn:
    try:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD
        )
        results: dict[str, str] = {}
        for function in SCENARIOS:
            results[function.__name__] = run(function, rank, folder)
            (folder / f"results-{rank}.json").write_text(json.dumps(results))
            if results[function.__name__] != "ok":
                os._exit(1)  # without waiting for the other process
        distributed.barrier()
        # Gloo's threads may outlive the group and abort or hang an orderly exit; all is written.
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
