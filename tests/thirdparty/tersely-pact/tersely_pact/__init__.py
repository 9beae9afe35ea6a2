"""The face of tersely-pact: two quantizers that train; imports no torch."""

import tersely

tersely_api = 1


@tersely.hookimpl
def tersely_quantizers() -> list[tersely.QuantizerInfo]:
    """Return the algorithms."""
    return [
        tersely.QuantizerInfo(
            name="pact",
            implementation="tersely_pact.algorithms:Pact",
            options={
                "type": "object",
                "properties": {"decay": {"type": "number", "minimum": 0}},
                "additionalProperties": False,
            },
            summary="Learns where to clip, with a penalty on large clips.",
            paper="Choi et al., PACT, 2018",
        ),
        tersely.QuantizerInfo(
            name="stochastic",
            implementation="tersely_pact.algorithms:Stochastic",
            options={
                "type": "object",
                "properties": {"seed": {"type": "integer", "minimum": 0}},
                "additionalProperties": False,
            },
            summary="Rounds up or down at random in training, to nearest afterwards.",
            paper="Gupta et al., Deep Learning with Limited Numerical Precision, ICML 2015",
        ),
    ]
