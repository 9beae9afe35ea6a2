"""The README's promises about itself: a short example, and two commands that say what is run."""

import re
from pathlib import Path

import tersely

ROOT = Path(__file__).parents[2]


def test_the_example_fits_on_a_screen(pages):
    [example] = [block for block in pages["README.md"].blocks if block.language == "python"]
    assert len(example.text.strip().splitlines()) <= 16


def test_there_are_exactly_two_commands(pages):
    commands = [block.text for block in pages["README.md"].blocks if block.language == "sh"]
    assert ["requirements.txt" in text and "digits/deploy.yaml" in text for text in commands] == [
        True,
        False,
    ]
    assert all(len(text.splitlines()) == 1 for text in commands)


def official(catalog):
    """Name -> descriptor of what the official family of a catalog provides."""
    return {
        name: catalog.info(name)
        for name in catalog
        if catalog.record(name).distribution == catalog.kind.family
    }


def test_the_features_name_every_pruner_and_quantizer(pages):
    registry = tersely.registry()
    provided = {**official(registry.pruners), **official(registry.quantizers)}
    features = pages["README.md"].sections["Features"]
    assert provided
    assert [name for name in provided if f"`{name}`" not in features] == []


def test_the_numbers_of_algorithms_and_losses_are_those_of_the_plugins(pages):
    registry, text = tersely.registry(), pages["README.md"].text
    compared = [one for one in official(registry.losses).values() if one.needs == "teacher"]
    assert f"masks, {len(official(registry.pruners))} algorithms" in text
    assert len(compared) == 12
    assert "[twelve losses](docs/distillation-losses.md) between any two modules" in text


def test_the_readme_of_each_family_has_a_row_for_each_name_that_it_provides():
    registry = tersely.registry()
    for family in ("pruning", "quantization", "distillation", "export"):
        catalogs = (registry.pruners, registry.quantizers, registry.losses, registry.exporters)
        provided = [
            name
            for catalog in catalogs
            for name in catalog
            if catalog.record(name).distribution == f"tersely-{family}"
        ]
        text = (ROOT / "plugins" / family / "README.md").read_text(encoding="utf-8")
        table = next(part for part in text.split("\n\n") if part.startswith("|"))
        rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
        assert provided
        assert {name: rows.count(name) for name in provided} == dict.fromkeys(provided, 1)


def test_readme_and_the_first_page_state_the_same_figures(pages):
    [row] = [line for line in pages["README.md"].text.splitlines() if "the exported file" in line]
    share, *times = map(float, re.findall(r"\b0\.\d+", row))
    stated = f"{share:.2f} of the dense bytes and {min(times):.2f} to {max(times):.2f} of its time"
    assert stated in pages["docs/index.md"].text


def test_ci_runs_the_second_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install --quiet -c constraints.txt tox" in script
    assert 'bin/tox" --skip-missing-interpreters=false' in script


def test_every_path_that_the_map_names_exists(pages):
    rows = [line for line in pages["README.md"].text.splitlines() if line.startswith("| `")]
    named = [line.split("`")[1] for line in rows if "/" in line.split("`")[1]]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
