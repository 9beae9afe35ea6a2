"""Experts whose matrices lie in one parameter: as linear layers of their own, however computed."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely
from tersely.errors import CalibrationError, CompressionWarning, PlanError

COUNT, WIDTH, INNER = 4, 8, 16
WEIGHTS = ["gate_up_proj", "down_proj"]


def by_loop(x, weight, experts):
    out = x.new_empty(len(x), weight.shape[1])
    for expert in range(len(weight)):
        rows = experts == expert
        if rows.any():
            out[rows] = functional.linear(x[rows], weight[expert]).to(out.dtype)
    return out


def by_operator(x, weight, experts):
    rows = [x[experts == number] @ weight[number].T for number in range(len(weight))]
    return torch.cat(rows)[torch.argsort(torch.argsort(experts, stable=True))]


def by_weight_first(x, weight, experts):
    rows = [(weight[number] @ x[experts == number].T).T for number in range(len(weight))]
    return torch.cat(rows)[torch.argsort(torch.argsort(experts, stable=True))]


def by_gathering(x, weight, experts):
    return torch.bmm(weight[experts], x[:, :, None]).squeeze(-1)


def by_selecting(x, weight, experts):
    return torch.bmm(x[:, None], weight.index_select(0, experts).transpose(1, 2)).squeeze(1)


def by_capacity(x, weight, experts):
    slots = torch.zeros(len(weight), len(x), x.shape[1])
    slots[experts, torch.arange(len(x))] = x
    return torch.bmm(slots, weight.transpose(1, 2))[experts, torch.arange(len(x))]


def by_groups(x, weight, experts):
    order = torch.argsort(experts, stable=True)
    ends = torch.bincount(experts, minlength=len(weight)).cumsum(0).to(torch.int32)
    out = functional.grouped_mm(x[order], weight.transpose(1, 2), offs=ends)
    return out[torch.argsort(order)]


def by_halves(x, weight, experts):
    half = weight.shape[1] // 2
    return torch.cat(
        [by_loop(x, weight[:, :half], experts), by_loop(x, weight[:, half:], experts)], 1
    )


def by_vectors(x, weight, experts):
    return torch.stack([weight[one].mv(row) for one, row in zip(experts, x, strict=True)])


def by_elements(x, weight, experts):
    return (weight[experts] * x[:, None]).sum(-1)


class FewExperts(nn.Module):
    """Gated experts, stacked; ``multiply`` says how."""

    def __init__(self, multiply=by_loop):
        super().__init__()
        self.num_experts, self.multiply = COUNT, multiply
        self.gate_up_proj = nn.Parameter(torch.randn(COUNT, 2 * INNER, WIDTH))
        self.down_proj = nn.Parameter(torch.randn(COUNT, WIDTH, INNER))

    def forward(self, x, experts):
        gate, up = self.multiply(x, self.gate_up_proj, experts).chunk(2, -1)
        return self.multiply(functional.silu(gate) * up, self.down_proj, experts)


class TransposedExperts(FewExperts):
    """The same with matrices of shape (inputs, outputs)."""

    def __init__(self, multiply=by_loop):
        super().__init__(multiply)
        for name in WEIGHTS:
            value = getattr(self, name).detach().transpose(1, 2).contiguous()
            setattr(self, name, nn.Parameter(value))

    def forward(self, x, experts):
        gate, up = self.multiply(x, self.gate_up_proj.transpose(1, 2), experts).chunk(2, -1)
        return self.multiply(functional.silu(gate) * up, self.down_proj.transpose(1, 2), experts)


class Layers(nn.Module):
    """The same experts as linear layers."""

    def __init__(self, stacked):
        super().__init__()
        self.gate_up_proj = nn.ModuleList(self.layer(one) for one in stacked.gate_up_proj)
        self.down_proj = nn.ModuleList(self.layer(one) for one in stacked.down_proj)

    @staticmethod
    def layer(weight):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        made.weight.data = weight.detach().clone()
        return made

    def forward(self, x, experts):
        out = torch.zeros_like(x)
        for number, (first, last) in enumerate(zip(self.gate_up_proj, self.down_proj, strict=True)):
            rows = experts == number
            gate, up = first(x[rows]).chunk(2, -1)
            out[rows] = last(functional.silu(gate) * up)
        return out


class Mixture(nn.Module):
    def __init__(self, experts, idle=None):
        super().__init__()
        self.experts, self.idle = experts, idle

    def forward(self, x):
        lead, x = x.shape[:-1], x.flatten(0, -2)
        chosen = (x.sum(1) * 7).long() % COUNT
        if self.idle is not None:
            chosen = torch.where(chosen == self.idle, (self.idle + 1) % COUNT, chosen)
        return self.experts(x, chosen).unflatten(0, lead)


def stacked(multiply=by_loop, *, idle=None, experts=FewExperts):
    torch.manual_seed(0)
    return Mixture(experts(multiply), idle)


def apart(*, idle=None):
    return Mixture(Layers(stacked().experts), idle)


def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(48, WIDTH, generator=generator) for _ in range(2)]


def pruned(model, algorithm, **keys):
    entry = {"op_types": [one.__name__ for one in (FewExperts, TransposedExperts, nn.Linear)]}
    present = {type(module).__name__ for module in model.modules()}
    entry["op_types"] = [name for name in entry["op_types"] if name in present]
    entry |= {"sparse_ratio": 0.5, **keys}
    return tersely.prune(model, [entry], algorithm=algorithm, data=batches())


def quantized(model, algorithm, **keys):
    is_apart = isinstance(model.experts, Layers)
    entry = {"op_types": ["Linear" if is_apart else "FewExperts"], "quant_dtype": "int4", **keys}
    entry["target_names"] = ["weight"] if is_apart else WEIGHTS
    return tersely.quantize(model, [entry], algorithm=algorithm, data=batches())


def stacked_masks(session):
    """Masks of linear layers, stacked."""
    masks = session.masks()
    return {
        name: torch.stack([masks[f"experts.{name}.{one}"]["weight"] for one in range(COUNT)])
        for name in WEIGHTS
    }


def is_equal(found, expected):
    return all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("algorithm", "granularity"),
    [
        ("wanda", "default"),
        ("wanda", "per_channel"),
        ("wanda", "2:4"),
        ("sparsegpt", "default"),
        ("sparsegpt", "2:4"),
        ("level", "default"),
        ("level", [4, 4]),
        ("l1_norm", "out_channel"),
        ("l1_norm", "in_channel"),
        ("l2_norm", {"group": 4}),
        ("fpgm", "default"),
        ("apoz", "default"),
        ("mean_activation", "default"),
        ("mean_activation", "out_channel"),
    ],
)
def test_each_expert_is_pruned_like_a_linear_layer(algorithm, granularity):
    model, reference = stacked(), apart()

    session = pruned(model, algorithm, granularity=granularity)

    expected = pruned(reference, algorithm, granularity=granularity)
    assert is_equal(session.masks()["experts"], stacked_masks(expected))
    x = batches()[0]
    assert torch.allclose(model(x), reference(x), atol=1e-5)


@pytest.mark.parametrize("granularity", ["default", "per_channel", {"group": 4}])
@pytest.mark.parametrize("algorithm", ["rtn", "ptq", "gptq", "adaround"])
def test_each_expert_is_quantized_like_a_linear_layer(algorithm, granularity):
    model, reference = stacked(), apart()

    session = quantized(model, algorithm, granularity=granularity)

    expected = quantized(reference, algorithm, granularity=granularity).qparams()
    for name in WEIGHTS:
        scales = session.qparams()["experts"][name].scale
        for number in range(COUNT):
            scale = expected[f"experts.{name}.{number}"]["weight"].scale
            assert torch.allclose(scales[number].flatten(), scale.flatten())
    x = batches()[0]
    assert torch.allclose(model(x), reference(x), atol=1e-5)


@pytest.mark.parametrize(
    "multiply",
    [
        by_operator,
        by_weight_first,
        by_gathering,
        by_selecting,
        by_capacity,
        by_groups,
        by_halves,
        by_vectors,
    ],
)
def test_rows_are_seen_however_they_are_multiplied(multiply):
    session = pruned(stacked(multiply), "wanda")

    assert is_equal(session.masks()["experts"], pruned(stacked(), "wanda").masks()["experts"])


@pytest.mark.parametrize(
    "multiply", [by_operator, by_weight_first, by_gathering, by_capacity, by_groups, by_halves]
)
def test_outputs_are_made_of_the_rows_however_they_are_multiplied(multiply):
    session = pruned(stacked(multiply), "apoz")

    assert is_equal(session.masks()["experts"], pruned(stacked(), "apoz").masks()["experts"])


def test_outputs_have_the_bias_of_their_expert():
    model = stacked()
    bias = torch.zeros(COUNT, 2 * INNER)
    bias[:, ::2] = 100.0  # always positive, whatever the rows are
    model.experts.gate_up_proj_bias = nn.Parameter(bias)

    session = pruned(model, "apoz")

    mask = session.masks()["experts"]["gate_up_proj"]
    assert mask[:, ::2].all()
    assert not mask[:, 1::2].any()


@pytest.mark.parametrize("algorithm", ["apoz", "mean_activation"])
def test_outputs_of_transposed_matrices_are_ranked_alike(algorithm):
    session = pruned(stacked(experts=TransposedExperts), algorithm)

    masks = session.masks()["experts"]
    found = {name: masks[name].transpose(1, 2) for name in WEIGHTS}
    assert is_equal(found, pruned(stacked(), algorithm).masks()["experts"])


@pytest.mark.parametrize("algorithm", ["apoz", "mean_activation"])
def test_magnitude_ranks_the_outputs_of_an_expert_that_no_row_reached(algorithm):
    model = stacked(idle=2)
    rows = model.experts.down_proj[2].detach().abs().sum(1)

    with pytest.warns(CompressionWarning, match=r"experts\.down_proj\[2\]"):
        session = pruned(model, algorithm)

    kept = session.masks()["experts"]["down_proj"][2].all(1)
    assert torch.equal(kept, rows > rows.kthvalue(WIDTH // 2).values)


@pytest.mark.parametrize("multiply", [by_loop, by_gathering, by_groups])
def test_transposed_matrices_are_pruned_along_their_inputs(multiply):
    session = pruned(stacked(multiply, experts=TransposedExperts), "wanda", granularity="2:4")

    masks = session.masks()["experts"]
    found = {name: masks[name].transpose(1, 2) for name in WEIGHTS}
    expected = pruned(stacked(), "wanda", granularity="2:4").masks()["experts"]
    assert is_equal(found, expected)


def test_rows_are_seen_in_inference_mode_and_under_autocast():
    def inferring(model, batch):
        with torch.inference_mode():
            model(batch)

    def casting(model, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(batch)

    expected = pruned(stacked(), "wanda").masks()["experts"]
    for forward, least in ((inferring, 1), (casting, 0.98)):
        model = stacked()
        entry = {"op_types": ["FewExperts"], "sparse_ratio": 0.5}
        session = tersely.prune(model, [entry], algorithm="wanda", data=batches(), forward=forward)
        for name in WEIGHTS:
            same = (session.masks()["experts"][name] == expected[name]).float().mean()
            assert same >= least


@pytest.mark.parametrize("algorithm", ["wanda", "sparsegpt"])
def test_magnitude_ranks_an_expert_that_no_row_reached(algorithm):
    model = stacked(idle=2)
    size = model.experts.down_proj[2].detach().abs()

    with pytest.warns(CompressionWarning) as caught:
        session = pruned(model, algorithm)

    (text,) = [str(one.message) for one in caught]
    assert "nothing for 2 targets" in text
    assert "experts.gate_up_proj[2], experts.down_proj[2]" in text
    mask = session.masks()["experts"]["down_proj"][2]
    expected = torch.zeros_like(size).scatter_(1, size.topk(INNER // 2, 1).indices, 1).bool()
    assert torch.equal(mask, expected)


def test_an_expert_that_no_row_reached_is_rounded_to_nearest():
    model, plain = stacked(idle=2), stacked()
    quantized(plain, "rtn", granularity="per_channel")

    with pytest.warns(CompressionWarning, match=r"rounded to nearest: experts\.gate_up_proj\[2\]"):
        quantized(model, "gptq", granularity="per_channel")

    assert torch.equal(model.experts.down_proj[2], plain.experts.down_proj[2])
    assert not torch.equal(model.experts.down_proj[1], plain.experts.down_proj[1])


def test_padding_reaches_no_expert():
    texts = torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, 5:] = 0
    data = torch.cat([texts[0], texts[1, :5]])[None]
    entry = [{"op_types": ["FewExperts"], "sparse_ratio": 0.5}]

    padded = tersely.prune(
        stacked(),
        entry,
        algorithm="wanda",
        data=[{"x": texts, "attention_mask": mask}],
        forward=lambda model, batch: model(batch["x"]),
    )

    whole = tersely.prune(stacked(), entry, algorithm="wanda", data=[data])
    assert is_equal(padded.masks()["experts"], whole.masks()["experts"])


def test_rows_among_padding_come_back_to_their_places():
    model, seen = stacked(), []
    texts = torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, 5:] = 0
    expected = model(texts) * mask[..., None]

    tersely.prune(
        model,
        [{"op_types": ["FewExperts"], "sparse_ratio": 0.5}],
        algorithm="wanda",
        data=[{"x": texts, "attention_mask": mask}],
        forward=lambda model, batch: seen.append(model(batch["x"])),
    )

    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_products_that_cannot_be_seen_are_an_error():
    with pytest.raises(CalibrationError) as caught:
        pruned(stacked(by_elements), "wanda")

    assert str(caught.value) == (
        "experts.gate_up_proj: wanda observes which rows each expert multiplies, and FewExperts "
        "computes in a way that does not show them, such as a kernel of its own; calibrate with "
        "plain matrix products (Transformers: model.set_experts_implementation('eager')), or leave "
        "it out"
    )


def test_a_forward_that_fails_leaves_nothing_that_watches():
    model = stacked()
    session = tersely.attach(
        model,
        {
            "pruning": {
                "algorithm": "wanda",
                "options": {"sequential": False},
                "config_list": [{"op_types": ["FewExperts"], "sparse_ratio": 0.5}],
            }
        },
    )
    cached = torch.is_autocast_cache_enabled()
    with pytest.raises(RuntimeError):
        session.calibrate([torch.randn(4, WIDTH + 1)])

    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    assert torch.is_autocast_cache_enabled() is cached
    session.calibrate(batches())
    session.compress()
    assert session.sparsity() == {"experts": {"gate_up_proj": 0.5, "down_proj": 0.5}}


def test_whole_experts_are_ranked_among_each_other():
    model = stacked()
    with torch.no_grad():
        for name in WEIGHTS:
            getattr(model.experts, name)[1:3] *= 0.01

    session = pruned(model, "l1_norm", granularity=[-1, -1])

    for mask in session.masks()["experts"].values():
        assert mask.flatten(1).all(1).tolist() == [True, False, False, True]


def test_masks_and_scales_of_experts_are_saved_and_finished(tmp_path):
    recipe = {
        "pruning": {
            "algorithm": "wanda",
            "config_list": [{"op_types": ["FewExperts"], "sparse_ratio": 0.5}],
        },
        "quantization": {
            "algorithm": "gptq",
            "config_list": [
                {"op_types": ["FewExperts"], "target_names": WEIGHTS, "granularity": "per_channel"}
            ],
        },
    }
    model, x = stacked(), batches()[0]
    session = tersely.attach(model, recipe)
    session.calibrate(batches())
    session.compress()
    session.save(tmp_path / "session")

    loaded = stacked()
    loaded.load_state_dict(model.state_dict(), strict=False)
    again = tersely.load_session(loaded, tmp_path / "session")
    expected = model(x)

    assert torch.equal(loaded(x), expected)
    assert is_equal(again.masks()["experts"], session.masks()["experts"])
    assert torch.equal(session.finalize()(x), expected)
    assert type(model.experts.down_proj) is nn.Parameter


@pytest.mark.parametrize("algorithm", ["qat", "lsq", "lsq_plus", "dorefa", "bnn"])
def test_scales_of_experts_follow_training(algorithm):
    model = stacked()
    entry = {"op_types": ["FewExperts"], "target_names": WEIGHTS}
    session = tersely.attach(
        model, {"quantization": {"algorithm": algorithm, "config_list": [entry]}}
    )
    session.calibrate(batches())
    session.compress()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    for batch in batches():
        session.total_loss(model(batch).square().mean()).backward()
        optimizer.step()
        session.step()
        optimizer.zero_grad()

    assert session.qparams()["experts"]["gate_up_proj"].scale.shape == (COUNT, 1, 1)
    assert torch.isfinite(session.finalize()(batches()[0])).all()


def test_gradients_rank_in_each_expert():
    model = stacked()
    entry = {"op_types": ["FewExperts"], "sparse_ratio": 0.5}
    session = tersely.attach(model, {"pruning": {"algorithm": "taylor", "config_list": [entry]}})
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    model(batches()[0]).square().mean().backward()
    scores = (model.experts.down_proj * model.experts.down_proj.grad).detach().square().sum(2)
    optimizer.step()
    session.step()
    session.compress()

    kept = session.masks()["experts"]["down_proj"][:, :, 0]
    expected = torch.zeros_like(kept).scatter_(1, scores.topk(WIDTH // 2, 1).indices, True)
    assert torch.equal(kept, expected)


def test_a_type_of_ones_own_is_registered_in_one_line():
    class Blend(nn.Module):
        def __init__(self):
            super().__init__()
            self.w1 = nn.Parameter(torch.randn(3, 4, 6))
            self.w1_bias = nn.Parameter(torch.zeros(3, 6))

    registry = tersely.registry()
    snapshot = registry._snapshot
    model = nn.Sequential(Blend())
    recipe = {
        "pruning": {
            "algorithm": "l1_norm",
            "config_list": [{"op_types": ["Blend"], "sparse_ratio": 0.5}],
        }
    }
    with pytest.raises(PlanError, match="has no default targets"):
        tersely.plan(model, recipe)
    try:
        tersely.register_module_setting(tersely.experts_setting("Blend", ["w1"], transposed=True))
        session = tersely.prune(model, recipe["pruning"]["config_list"])
    finally:
        # There is no public way to take a module setting back, and tests must not leave any.
        registry._publish(snapshot.plugins, snapshot.user_settings)

    masks = session.masks()["0"]
    assert masks["w1"][:, 0].sum(1).tolist() == [3, 3, 3]
    assert torch.equal(masks["w1_bias"], masks["w1"][:, 0])


@pytest.mark.parametrize("algorithm", ["awq", "smoothquant"])
def test_factors_that_experts_share_are_not_loaded_where_each_has_its_own(algorithm):
    entry = {"op_types": ["FewExperts"], "target_names": ["gate_up_proj", "down_proj", "_input_"]}
    recipe = {"quantization": {"algorithm": algorithm, "config_list": [entry]}}
    model, other = stacked(), stacked()
    session = tersely.attach(model, recipe)
    session.calibrate(batches())
    session.compress()
    state = {name: one.clone() for name, one in model.state_dict().items()}
    shared = "experts._tersely_gate_up_proj_input_scale"
    assert state[shared].ndim == 1
    tersely.attach(other, recipe)

    with pytest.raises(RuntimeError, match=r"are shared by all experts, .* session\.compress"):
        other.load_state_dict(state)


class LargeExperts(FewExperts):
    """Experts whose parameters are larger than what is worked on at a time."""

    def __init__(self, multiply=by_loop):
        super().__init__(multiply)
        generator = torch.Generator().manual_seed(2)
        self.up = nn.Parameter(torch.randn(4, 1024, 1024, generator=generator))

    def forward(self, x, experts):
        self.read = self.up.data_ptr()
        return functional.linear(x.new_ones(2, 1024), self.up[0]) + self.up[1, 0]


@pytest.mark.parametrize("algorithm", ["rtn", "level"])
def test_each_call_computes_in_the_memory_of_the_one_before(algorithm):
    model = LargeExperts()
    method = "pruning" if algorithm == "level" else "quantization"
    entry = {"op_names": [""], "target_names": ["up"]}
    entry |= {"sparse_ratio": 0.5} if method == "pruning" else {"granularity": "per_channel"}
    session = tersely.attach(model, {method: {"algorithm": algorithm, "config_list": [entry]}})
    session.compress()
    wanted = functional.linear(torch.ones(2, 1024), model.up[0]) + model.up[1, 0]

    places = []
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(model(torch.ones(1, 2), None), wanted)
            places.append(model.read)
    model(torch.ones(1, 2), None).sum().backward()

    assert len(set(places)) == 1
    assert model._parameters["up"].grad[2:].count_nonzero() == 0
    assert model._parameters["up"].grad[0].count_nonzero() > 0
