"""A training script that can be killed at any time: prune, then quantize, taught throughout.

``python pipeline.py FOLDER STEPS`` saves after every third step and goes on where it was.
"""

import shutil
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

import tersely

RECIPE = {
    "distillation": {"config_list": [{"op_names": ["3"], "apply_method": "kl"}]},
    "stages": [
        {
            "until": 12,
            "pruning": {
                "algorithm": "taylor",
                "schedule": {"name": "agp", "every": 2, "times": 6},
                "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
            },
        },
        {
            "quantization": {
                "algorithm": "lsq",
                "config_list": [{"op_types": ["Linear"], "target_names": ["_input_", "weight"]}],
            }
        },
    ],
}


def network(width):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 4))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(32, 8, generator=generator)
    return inputs, inputs[:, :4].argmax(1)


def save(folder, model, optimizer, session):
    """Write a checkpoint beside the last one and put it in its place when it is whole."""
    fresh = folder / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    session.save(fresh)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(state, fresh / "training.pt")
    fresh.rename(folder / f"step-{session.steps:04}")


def main():
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    model, teacher = network(16), network(32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    saved = sorted(folder.glob("step-*"))
    if saved:
        state = torch.load(saved[-1] / "training.pt", weights_only=True)
        own = {name: state["model"][name] for name in model.state_dict()}
        model.load_state_dict(own)
        session = tersely.load_session(model, saved[-1], teacher=teacher)
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
    else:
        session = tersely.attach(model, RECIPE, teacher=teacher)
    session.calibrate([batch(1000)[0], batch(1001)[0]])
    if not saved:
        session.compress()
    while session.steps < steps:
        inputs, labels = batch(session.steps)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        session.teacher_forward(inputs)
        session.total_loss(loss).backward()
        optimizer.step()
        session.step()
        print(session.steps, flush=True)  # noqa: T201  # whoever kills it listens
        if session.steps % 3 == 0:
            save(folder, model, optimizer, session)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inputs stay instrumented
        torch.save(session.finalize().state_dict(), folder / "finished.pt")


if __name__ == "__main__":
    main()
