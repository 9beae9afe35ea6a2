"""What the core says of its tracer."""

import tersely


def test_the_tracer_is_the_cores_own():
    assert tersely.registry().tracers.record("exported_graph").distribution == "tersely"


def test_it_is_one():
    assert isinstance(tersely.registry().tracers["exported_graph"](), tersely.DependencyTracer)
