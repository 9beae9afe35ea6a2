"""Names in pictures: short, and apart from each other."""

from tersely.reporting.page.short_names import short_names

LAYERS = [f"encoder.layer.{n // 2}.attention.{'qk'[n % 2]}_projection.weight" for n in range(4)]


def test_what_all_names_share_is_left_out() -> None:
    assert short_names(LAYERS, 30) == [
        "0.attention.q_projection",
        "0.attention.k_projection",
        "1.attention.q_projection",
        "1.attention.k_projection",
    ]


def test_names_that_are_short_enough_stay_whole() -> None:
    assert short_names(["conv1.weight", "conv2.weight"], 12) == ["conv1.weight", "conv2.weight"]


def test_first_words_become_initials_where_cutting_would_make_names_alike() -> None:
    assert short_names([*LAYERS, "classifier.bias"], 34) == [
        "e.l.0.a.q_projection.weight",
        "e.l.0.a.k_projection.weight",
        "e.l.1.a.q_projection.weight",
        "e.l.1.a.k_projection.weight",
        "classifier.bias",
    ]


def test_ends_are_cut_where_middles_would_make_names_alike() -> None:
    names = [name.removesuffix(".weight") for name in LAYERS]

    assert short_names([*names, "classifier"], 16) == [
        "e.l.0.a.q_pro...",
        "e.l.0.a.k_pro...",
        "e.l.1.a.q_pro...",
        "e.l.1.a.k_pro...",
        "classifier",
    ]


def test_one_name_loses_its_middle() -> None:
    assert short_names(["backbone.layers.projection"], 16) == ["backb...ojection"]
