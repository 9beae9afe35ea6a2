"""The family combinations leaves no pair of pruning keys out. No torch."""

import json
from itertools import combinations

import pytest

from tersely.document.schemas.spec import spec_directory

KEYS = (
    "sparse_ratio",
    "sparse_threshold",
    "min_sparse_ratio",
    "max_sparse_ratio",
    "global_group_id",
    "dependency_group_id",
    "internal_metric_block",
    "align",
    "channels",
    "blocks",
    "N:M",
    "mul",
    "add",
    "input",
    "output",
)
ALTERNATIVES = ({"channels", "blocks", "N:M"}, {"mul", "add"}, {"input", "output"})
"""Of these one target has one: they meet no other of their kind."""

PAIRS = [
    pair
    for pair in combinations(KEYS, 2)
    if not any(alternatives.issuperset(pair) for alternatives in ALTERNATIVES)
]
GROUPS = ("global_group_id", "dependency_group_id", "internal_metric_block")


def targets_of(case):
    """Setting of each target by its full name; the entry's own keys under those of the target."""
    found = {}
    for entry in case["given"]["recipe"]["pruning"]["config_list"]:
        own = entry.get("target_settings", {})
        shared = {key: entry[key] for key in entry.keys() & {*KEYS, "granularity", "apply_method"}}
        for target in entry["target_names"]:
            setting = own.get(target, {})
            base = {} if "align" in setting else shared
            for module in entry["op_names"]:
                found[f"{module}.{target}"] = {**base, **setting}
    return found


def words_of(name, setting):
    """The keys of a target, its granularity, way to apply and kind as the words of KEYS."""
    words = {key for key in KEYS if key in setting}
    words |= {setting["apply_method"]} if "apply_method" in setting else set()
    words |= {kind for kind in ("input", "output") if name.endswith(f"._{kind}_")}
    granularity = setting.get("granularity")
    if granularity is not None:
        is_block = isinstance(granularity, list)
        words.add("blocks" if is_block else "N:M" if ":" in granularity else "channels")
    return words


def gatherings_of(case):
    """Words that meet: on a target, between a target and what it follows, and in a group."""
    targets = targets_of(case)
    words = {name: words_of(name, setting) for name, setting in targets.items()}
    for name, setting in targets.items():
        yield words[name]
        if "align" in setting:
            source = setting["align"].get("module_name", name.rpartition(".")[0])
            yield words[name] | words[f"{source}.{setting['align']['target_name']}"]
        for key in GROUPS[:2]:
            if key in setting:
                members = [one for one in targets if targets[one].get(key) == setting[key]]
                yield set().union(*(words[one] for one in members))


def spelled_in(error):
    """The words of KEYS that the words of an error speak of."""
    found = {key for key in KEYS if key in error}
    found |= {"N:M"} if any(word.partition(":")[2].isdigit() for word in error) else set()
    return found | {kind for kind in ("input", "output") if any(f"_{kind}_" in w for w in error)}


def covers(case, pair):
    is_together = any(set(pair) <= words for words in gatherings_of(case))
    error = case["expect"].get("error")
    return is_together and (error is None or set(pair) <= spelled_in(error))


@pytest.fixture(scope="module")
def cases(all_families):
    return all_families["combinations"]["cases"]


def test_the_keys_are_those_of_the_schema():
    schema = json.loads((spec_directory() / "config_list.schema.json").read_text(encoding="utf-8"))
    keys = set(schema["$defs"]["pruning_target"]["properties"])
    # The rest by what they say; mask_value goes with add, the last two with groups.
    others = {"granularity", "apply_method", "mask_value", "dependency_parts", "budget"}
    assert keys - {*KEYS} == others


def test_every_pair_of_keys_has_a_case(cases):
    assert len(PAIRS) == 100
    assert [pair for pair in PAIRS if not any(covers(case, pair) for case in cases)] == []


def test_without_its_cases_a_pair_is_missed(cases):
    pair = ("dependency_group_id", "internal_metric_block")
    rest = [case for case in cases if not covers(case, pair)]
    assert 0 < len(rest) < len(cases)
    assert not any(covers(case, pair) for case in rest)


def test_an_error_counts_for_the_keys_it_speaks_of_alone(cases):
    [case] = [
        one for one in cases if one["name"] == "two_of_four_beside_global_group_id_is_an_error"
    ]
    assert covers(case, ("N:M", "global_group_id"))
    assert not covers(case, ("global_group_id", "sparse_ratio"))


@pytest.mark.parametrize("ratio", [0, 1])
@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_a_case_at_each_end(cases, group, ratio):
    def is_at_the_end(setting):
        bounds = {"min_sparse_ratio", "max_sparse_ratio"} & setting.keys()
        return group in setting and setting.get("sparse_ratio") == ratio and not bounds

    settings = [list(targets_of(case).values()) for case in cases if "masks" in case["expect"]]
    assert any(all(map(is_at_the_end, one)) for one in settings)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_a_case_of_equals_alone(cases, group):
    def is_of_equals(case):
        modules = case["given"]["model"]["modules"]
        weights = [str(module.get("parameters", {}).get("weight")) for module in modules]
        return len({letter for weight in weights for letter in weight if letter.isdigit()}) == 1

    assert any(
        group in setting and 0 < setting["sparse_ratio"] < 1
        for case in cases
        if is_of_equals(case)
        for setting in targets_of(case).values()
    )
