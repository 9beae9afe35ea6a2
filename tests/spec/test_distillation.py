"""Family distillation: the losses."""

import pytest
import torch

import laconic


@pytest.mark.spec("distillation", has="loss")
def test_loss(case):
    given = case["given"]
    chosen = given["loss"]
    [(name, options)] = chosen.items() if isinstance(chosen, dict) else [(chosen, {})]
    student = torch.tensor(given["student"], dtype=torch.float64)
    teacher = torch.tensor(given["teacher"], dtype=torch.float64)
    found = laconic.registry().losses[name](student, teacher, **options)
    assert found.shape == ()
    assert float(found) == pytest.approx(case["expect"]["value"], abs=1e-11)
