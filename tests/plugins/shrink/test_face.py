"""What tersely-shrink says of itself."""

import subprocess
import sys

import tersely


def test_one_tracer_is_known_with_its_paper():
    record = tersely.registry().tracers.record("torch_pruning")

    assert record.distribution == "tersely-shrink"
    assert record.descriptor.paper == (
        "Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023"
    )


def test_the_face_imports_neither_torch_nor_torch_pruning():
    code = "import sys, tersely_shrink; assert not {'torch', 'torch_pruning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_its_tracer_is_one():
    assert isinstance(tersely.registry().tracers["torch_pruning"](), tersely.DependencyTracer)
