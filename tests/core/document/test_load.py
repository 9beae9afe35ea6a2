"""From documents to recipes, entries and jobs."""

from pathlib import Path

import pytest
from messages.documents import RECIPE_FILE, RELATIVE_TO_JOB, STRINGS_EXPECTED

import tersely
from tersely.document.job import Export, JobData
from tersely.document.load import load_job, load_recipe, parse_config_list
from tersely.document.recipe import Entry, Recipe, Schedule

RECIPE = """\
distillation:
  task_loss_weight: 2
  config_list:
  - {op_names: [layer4], lambda: 0.5, link: [a, b]}
pruning:
- algorithm: power
  options: {power: 2}
  schedule: {name: agp, every: 100.0, times: 10}
  config_list:
  - op_types: [Conv2d]
    exclude_op_names: [stem]
    sparse_ratio: 1
    granularity: [4.0, -1]
    apply_method:
    target_settings:
      weight: {internal_metric_block: 2.0, min_sparse_ratio: null}
- algorithm: level
  config_list: [{op_names_re: [fc], target_names: [weight, bias]}]
quantization:
  algorithm: ptq
  config_list:
  - {op_names: [conv], fuse_names: [[conv, bn]], quant_dtype: int4}
requires: [attrs]
on_conflict: error
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return load_recipe(tmp_path / "recipe.yaml")


def test_stages_come_by_method_and_then_as_written(recipe):
    assert [(stage.method, stage.path, stage.algorithm) for stage in recipe.stages] == [
        ("pruning", "pruning[0]", "power"),
        ("pruning", "pruning[1]", "level"),
        ("quantization", "quantization", "ptq"),
        ("distillation", "distillation", ""),
    ]


def test_an_entry_separates_selectors_targets_and_shortcuts(recipe):
    assert recipe.stages[0].entries == (
        Entry(
            path="pruning[0].config_list[0]",
            op_types=("Conv2d",),
            exclude_op_names=("stem",),
            shortcuts={"sparse_ratio": 1, "granularity": [4, -1]},
            target_settings={"weight": {"internal_metric_block": 2}},
            line=10,
        ),
    )
    assert recipe.stages[1].entries[0].target_names == ("weight", "bias")
    assert recipe.stages[2].entries[0].fuse_names == (("conv", "bn"),)
    assert recipe.stages[3].entries[0].shortcuts == {"lambda": 0.5, "link": ["a", "b"]}


def test_whole_numbers_become_integers_where_integers_are_meant(recipe):
    block = recipe.stages[0].entries[0].target_settings["weight"]["internal_metric_block"]
    size = recipe.stages[0].entries[0].shortcuts["granularity"][0]

    assert [type(value) for value in (block, size, recipe.stages[0].schedule.every)] == [int] * 3


def test_a_schedule_fills_in_what_is_left_out(recipe):
    assert recipe.stages[0].schedule == Schedule(name="agp", begin=0, every=100, times=10)


def test_the_rest_of_the_recipe_is_kept(recipe):
    assert recipe.requires == ("attrs",)
    assert recipe.on_conflict == "error"
    assert recipe.strict is False
    assert recipe.stages[3].task_loss_weight == 2.0
    assert Path(recipe.source).name == "recipe.yaml"


def test_the_document_is_kept_as_it_was_written(recipe):
    assert recipe.document["pruning"][0]["config_list"][0]["apply_method"] is None
    assert load_recipe(recipe.document) == attrs_without_lines(recipe)


def attrs_without_lines(recipe):
    import attrs

    stages = tuple(
        attrs.evolve(
            stage, entries=tuple(attrs.evolve(entry, line=None) for entry in stage.entries)
        )
        for stage in recipe.stages
    )
    return attrs.evolve(recipe, stages=stages)


def test_python_data_makes_the_same_recipe_as_json(tmp_path):
    (tmp_path / "recipe.json").write_text(
        '{"pruning": {"algorithm": "level", "config_list": [{"op_types": ["Linear"]}]}}'
    )
    data = {"pruning": {"algorithm": "level", "config_list": ({"op_types": ("Linear",)},)}}
    (stage,) = load_recipe(data).stages

    assert isinstance(tersely.load_recipe(data), Recipe)
    assert stage.entries[0].op_types == ("Linear",)
    assert load_recipe(tmp_path / "recipe.json").document == load_recipe(data).document


def test_a_wrong_file_is_named_with_every_problem(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("pruning:\n  algorithm: lvel\n  config_list:\n  - op_types: Linear\n")

    with pytest.raises(tersely.ConfigError) as caught:
        load_recipe(path)

    assert str(caught.value) == (
        f"{path} has 2 problems:\n"
        "  2:14: pruning.algorithm: found 'lvel', expected a pruner: l1_norm, level, power or "
        "taylor (did you mean 'level'?)\n"
        f"  4:15: pruning.config_list[0].op_types: found 'Linear', {STRINGS_EXPECTED} (write "
        "a list: [Linear])"
    )


def test_a_class_where_a_name_is_meant_is_one_problem():
    class Linear:
        pass

    with pytest.raises(tersely.ConfigError) as caught:
        parse_config_list("pruning", [{"op_types": [Linear]}])

    (problem,) = caught.value.problems
    assert problem.path == "[0].op_types[0]"
    assert problem.hint == "write its name, 'Linear'"


def test_a_config_list_has_paths_of_its_own():
    (entry,) = parse_config_list("quantization", [{"op_types": ["Linear"], "quant_dtype": "int4"}])

    assert entry == Entry(path="[0]", op_types=("Linear",), shortcuts={"quant_dtype": "int4"})


JOB = """\
model: models:build
model_args: {width: 8}
data: {calibration: data:batches}
recipe: recipes/first.yaml
output: runs/first
export: [{format: onnx, options: {opset: 18.0}}]
seed: 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "first.yaml").write_text(
        "pruning: {algorithm: level, config_list: [{op_types: [a]}]}"
    )
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def test_a_job_finds_its_recipe_and_output_from_its_own_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    job = load_job("job.yaml")

    assert job.directory == folder.resolve()
    assert job.output == folder.resolve() / "runs" / "first"
    assert job.recipe.stages[0].algorithm == "level"
    assert Path(job.recipe.source).name == "first.yaml"


def test_a_job_keeps_the_rest_and_fills_in_what_is_left_out(folder):
    job = load_job(folder / "job.yaml")

    assert (job.model, job.model_args, job.seed) == ("models:build", {"width": 8}, 3)
    assert job.data == JobData(calibration="data:batches")
    assert job.export == (Export(format="onnx", options={"opset": 18}),)
    assert (job.teacher, job.train, job.teacher_args) == (None, None, {})


def test_a_recipe_inside_a_job_has_the_paths_of_a_recipe(tmp_path):
    (tmp_path / "job.yaml").write_text(
        "model: a:b\noutput: out\nrecipe:\n"
        "  pruning: {algorithm: level, config_list: [{op_types: [a]}]}\n"
    )
    job = load_job(tmp_path / "job.yaml")
    (entry,) = job.recipe.stages[0].entries

    assert (entry.path, entry.line) == ("pruning.config_list[0]", 4)
    assert set(job.recipe.document) == {"pruning"}


def test_a_recipe_file_that_is_missing_is_a_problem_of_the_job(folder):
    (folder / "recipes" / "first.yaml").unlink()

    with pytest.raises(tersely.ConfigError) as caught:
        load_job(folder / "job.yaml")

    (problem,) = caught.value.problems
    missing = str(folder.resolve() / "recipes" / "first.yaml")
    assert str(problem) == (
        f"4:9: recipe: found 'recipes/first.yaml', {RECIPE_FILE} {missing!r} {RELATIVE_TO_JOB}"
    )


def test_mistakes_in_the_recipe_of_a_job_name_the_recipe(folder):
    (folder / "recipes" / "first.yaml").write_text("pruning: 3")

    with pytest.raises(tersely.ConfigError, match=r"first\.yaml has 1 problem"):
        load_job(folder / "job.yaml")
