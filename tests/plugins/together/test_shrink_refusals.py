"""What cannot be shrunk is refused by name, and what stays says why."""

import copy
import warnings

import pytest
import torch
from messages.documents import at_least
from messages.planning import NO_VALUE_BRANCHES
from messages.sessions import ON_META
from messages.shrinking import EXAMPLE_FAILS
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel

import tersely

INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def pruned(model, name="0"):
    config = [{"op_names": [name], "sparse_ratio": 0.5}]
    return tersely.prune(model, config, algorithm="l1_norm")


def refusal(session, inputs=INPUTS):
    """The message; what is refused is as it was."""
    before = copy.deepcopy([parameter.shape for parameter in session.model.parameters()])
    with pytest.raises(tersely.SessionError) as caught:
        session.shrink(inputs)
    assert [parameter.shape for parameter in session.model.parameters()] == before
    return str(caught.value)


@pytest.fixture
def alone():
    """A process group of one."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_compiled_model():
    model = torch.compile(network(), backend="eager")
    session = pruned(model, "_orig_mod.0")
    assert "the model is compiled; shrink first, then torch.compile" in refusal(session)


def test_a_compiled_module():
    model = network()
    session = pruned(model)
    model[2].compile(backend="eager")
    assert "'2' is compiled" in refusal(session)


def test_an_exported_model():
    model = torch.export.export(network(), (INPUTS,)).module()
    session = tersely.prune(
        model,
        [{"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}],
        algorithm="l1_norm",
    )
    message = refusal(session)
    assert "the model is exported" in message
    assert "shrink the model that it was exported from" in message


def test_a_scripted_module_with_tensors_of_its_own():
    model = network()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        model[0].other = torch.jit.script(nn.Linear(2, 2))
    assert "'0.other' is exported" in refusal(pruned(model))


def test_a_model_for_several_processes(alone):
    model = DistributedDataParallel(network())
    message = refusal(pruned(model, "module.0"))
    assert "the model is wrapped in DistributedDataParallel; shrink before wrapping" in message


def test_a_model_for_several_devices():
    message = refusal(pruned(DataParallel(network()), "module.0"))
    assert "the model is wrapped in DataParallel; shrink before wrapping" in message


def test_a_session_without_masks_of_parameters():
    session = tersely.attach(
        network(),
        {
            "quantization": {
                "algorithm": "rtn",
                "config_list": [{"op_types": ["Linear"], "target_names": ["weight"]}],
            }
        },
    )
    session.compress()
    assert "prune with a structured granularity first" in refusal(session)


def test_no_example():
    session = pruned(network())
    assert "attach with example_inputs=..." in refusal(session, None)


def test_a_sharded_model(alone):
    model = network()
    session = pruned(model)
    fully_shard(model, mesh=distributed.init_device_mesh("cpu", (1,)))
    with pytest.raises(tersely.SessionError, match=r"0\.weight is sharded by FSDP; shrink before"):
        session.shrink(INPUTS)


def test_a_model_without_weights():
    with torch.device("meta"):
        model = network()
    session = tersely.attach(
        model,
        {
            "pruning": {
                "algorithm": "l1_norm",
                "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}],
            }
        },
    )
    assert f"0.weight {ON_META}" in refusal(session)


def test_an_example_that_does_not_run():
    message = refusal(pruned(network()), torch.randn(2, 5))
    assert EXAMPLE_FAILS in message


class Branching(nn.Module):
    """A forward that looks at a size, or at a value."""

    def __init__(self, *, by_value):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.by_value = by_value

    def forward(self, x):
        x = self.first(x).relu()
        if (x.sum() > 0) if self.by_value else (x.shape[1] > 6):
            x = x * 2
        return self.second(x)


def test_a_branch_on_a_size_stays_as_wide_as_it_is_and_says_so():
    model = Branching(by_value=False)
    shrunk = pruned(model, "first").shrink(INPUTS)
    assert model.first.out_features == 8
    assert {stay.target for stay in shrunk.stays} == {"first.weight"}
    assert all("depends on the size" in stay.reason for stay in shrunk.stays)


def test_a_branch_on_a_value_is_refused():
    message = refusal(pruned(Branching(by_value=True), "first"))
    assert NO_VALUE_BRANCHES in message


def test_masks_that_keep_everything():
    session = tersely.prune(
        network(), [{"op_names": ["0"], "sparse_ratio": 0.0}], algorithm="l1_norm"
    )
    assert "found masks that keep everything" in refusal(session)


def test_masks_of_single_elements():
    session = tersely.prune(
        network(), [{"op_names": ["0"], "sparse_ratio": 0.5}], algorithm="level"
    )
    assert "use granularity: out_channel" in refusal(session)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"round_to": 0}, f"shrink() found round_to=0; give {at_least(1)}"),
        ({"round_to": 2.5}, f"shrink() found round_to=2.5; give {at_least(1)}"),
        ({"round_to": "8"}, f"shrink() found round_to='8'; give {at_least(1)}"),
        ({"round_to": True}, f"shrink() found round_to=True; give {at_least(1)}"),
        ({"approximate": "yes"}, "shrink() found approximate='yes'; give True or False"),
        ({"optimizer": 3}, "shrink() found an optimizer of type int; give the"),
    ],
)
def test_options_that_mean_nothing(options, message):
    session = pruned(network())
    with pytest.raises(tersely.SessionError) as caught:
        session.shrink(INPUTS, **options)
    assert str(caught.value).startswith(message)
    assert session.model[0].out_features == 8
