"""Experts of Transformers in one parameter: seen through every implementation of their products."""

import pytest
import torch

import tersely

# transformers imports its models when they are first used, and libraries that it finds with them.
pytestmark = pytest.mark.filterwarnings("ignore")

IMPLEMENTATIONS = ("eager", "grouped_mm", "batched_mm")
SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "Mixtral": {"intermediate_size": 24, "num_local_experts": 4},
    "Qwen3Moe": {"moe_intermediate_size": 24, "num_experts": 4, "head_dim": 8},
    "GptOss": {"intermediate_size": 24, "num_local_experts": 4, "head_dim": 8},
}


def build(family, implementation):
    import transformers  # its models are imported under the filter above

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SMALL, **FAMILIES[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.set_experts_implementation(implementation)
    return model.eval()


def batches():
    generator = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(0, 50, (2, 12), generator=generator)} for _ in range(2)]


def experts_of(model):
    return next(one for one in model.modules() if type(one).__name__.endswith("Experts"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("algorithm", ["wanda", "sparsegpt"])
def test_experts_are_pruned_alike_whichever_implementation_multiplies(family, algorithm):
    found = []
    for implementation in IMPLEMENTATIONS:
        model = build(family, implementation)
        entry = {"op_types": [f"{family}Experts"], "sparse_ratio": 0.5}
        session = tersely.prune(model, [entry], algorithm=algorithm, data=batches())
        found.append(session.masks()["model.layers.1.mlp.experts"]["down_proj"])

    assert found[0].float().mean() == 0.5
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_rounded_alike_whichever_implementation_multiplies(family):
    found = []
    for implementation in IMPLEMENTATIONS:
        model = build(family, implementation)
        entry = {
            "op_types": [f"{family}Experts"],
            "target_names": ["gate_up_proj", "down_proj"],
            "quant_dtype": "int4",
            "granularity": {"group": 8},
        }
        tersely.quantize(model, [entry], algorithm="gptq", data=batches()).finalize()
        found.append(model(**batches()[0]).logits.detach())

    assert all(torch.allclose(one, found[0], atol=1e-5) for one in found)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_rows_of_an_expert_are_those_that_the_router_sent_to_it(implementation):
    model, calls = build("Mixtral", implementation), []
    experts = experts_of(model)
    hook = experts.register_forward_pre_hook(lambda _, args: calls.append(args))
    model(**batches()[0])
    hook.remove()
    ((rows, chosen, _),) = calls
    entry = {"op_names": ["model.layers.0.mlp.experts"], "sparse_ratio": 0.5}

    session = tersely.prune(
        model, [entry], algorithm="wanda", options={"sequential": False}, data=batches()[:1]
    )

    masks = session.masks()["model.layers.0.mlp.experts"]
    for expert in range(4):
        inputs = rows[(chosen == expert).any(1)]
        gate, up = (inputs @ experts._parameters["gate_up_proj"][expert].T).chunk(2, -1)
        inner = torch.nn.functional.silu(gate) * up
        for name, seen in (("gate_up_proj", inputs), ("down_proj", inner)):
            scores = experts._parameters[name][expert].abs() * seen.norm(dim=0)
            kept = scores.topk(scores.shape[1] // 2, 1).indices
            assert torch.equal(
                masks[name][expert], torch.zeros_like(scores).scatter_(1, kept, 1).bool()
            )


def test_the_layout_of_gpt_oss_has_its_outputs_last():
    plan = tersely.plan(
        build("GptOss", "eager"),
        {
            "pruning": {
                "algorithm": "l1_norm",
                "config_list": [{"op_types": ["GptOssExperts"], "sparse_ratio": 0.5}],
            }
        },
    )

    (weight,) = [one for one in plan if one.name == "model.layers.0.mlp.experts.gate_up_proj"]
    (bias,) = [one for one in plan if one.name == "model.layers.0.mlp.experts.gate_up_proj_bias"]
    assert (weight.shape, weight.blocks.size) == ((4, 16, 48), (1, -1, 1))
    assert bias.align.dims == (0, 2)


def test_keys_and_values_of_a_block_that_runs_twice_are_cached_once():
    kept = []
    for use_cache in (True, False):
        model = build("Mixtral", "eager")
        data = [{**batch, "use_cache": use_cache} for batch in batches()]
        entry = {"op_types": ["Linear"], "exclude_op_names": ["lm_head"], "sparse_ratio": 0.5}
        session = tersely.prune(model, [entry], algorithm="wanda", data=data)
        kept.append(session.masks()["model.layers.1.self_attn.o_proj"]["weight"])

    assert torch.equal(*kept)
