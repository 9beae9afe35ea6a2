"""Whatever JSON comes in, a recipe or a ConfigError comes out."""

import contextlib
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tersely
from tersely.document.load import load_recipe, parse_config_list
from tersely.document.reading.json_text import read_json
from tersely.document.reading.yaml_text import read_yaml
from tersely.document.recipe import Recipe

KEYS = st.sampled_from(
    [
        *("op_names", "op_types", "op_names_re", "exclude_op_types", "target_names", "exclude"),
        *("target_settings", "sparse_ratio", "sparse_threshold", "min_sparse_ratio", "sparsity"),
        *("max_sparse_ratio", "granularity", "align", "dims", "target_name", "apply_method"),
        *("lambda", "link", "quant_dtype", "fuse_names", "block", "kl", "power"),
    ]
)
# Without what JSON writes as two halves and YAML does not put together again.
PLAIN = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(PLAIN, max_size=8)
    | st.sampled_from(["default", "weight", "_input_", "0.5", "50%", "out_channel", "("])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.text(PLAIN, max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
STAGE = st.fixed_dictionaries(
    {"config_list": st.lists(st.dictionaries(KEYS, JSON, max_size=5), max_size=3) | JSON},
    optional={
        "algorithm": st.sampled_from(["level", "power", "taylor", "ptq"]) | JSON,
        "options": st.dictionaries(st.sampled_from(["power", "steps"]), JSON) | JSON,
        "schedule": JSON,
    },
)
RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "pruning": STAGE | st.lists(STAGE, max_size=2) | JSON,
        "quantization": STAGE | JSON,
        "distillation": STAGE | JSON,
        "requires": JSON,
        "strict": JSON,
        "on_conflict": JSON,
    },
)
QUIET = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUIET
@given(RECIPES | JSON)
def test_any_data_is_a_recipe_or_a_config_error(data):
    with contextlib.suppress(tersely.ConfigError):
        assert isinstance(load_recipe(data if isinstance(data, dict) else [data]), Recipe)


@QUIET
@given(st.sampled_from(["pruning", "quantization", "distillation"]), st.lists(JSON, max_size=3))
def test_any_list_is_a_config_list_or_a_config_error(method, data):
    with contextlib.suppress(tersely.ConfigError):
        parse_config_list(method, data)


@QUIET
@given(
    st.lists(
        st.dictionaries(KEYS | st.sampled_from(["quant_types", "quant_bits"]), JSON, max_size=5),
        max_size=3,
    )
)
def test_any_list_migrates_or_is_a_config_error(data):
    with contextlib.suppress(tersely.ConfigError):
        tersely.migrate(data)


@QUIET
@given(st.text(alphabet=" \n\t-:[]{}&*!<?'\"ab01.#|>%,", max_size=40))
def test_any_text_is_a_document_or_a_config_error(text):
    with contextlib.suppress(tersely.ConfigError):
        read_yaml(text)


@QUIET
@given(JSON)
def test_json_reads_the_same_as_yaml_and_as_json(data):
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        return
    assert read_json(text).data == read_yaml(text).data == data
