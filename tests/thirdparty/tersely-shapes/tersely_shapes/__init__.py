"""The face of tersely-shapes: two granularities of numbered blocks; imports no torch."""

import tersely

tersely_api = 1
HEADS = {
    "type": "object",
    "properties": {
        "heads": {"type": "integer", "minimum": 1},
        "order": {"enum": ["qkv", "interleaved"]},
    },
    "required": ["heads"],
    "additionalProperties": False,
    "examples": [{"heads": 2}, {"heads": 4, "order": "interleaved"}],
}


@tersely.hookimpl
def tersely_granularities() -> list[tersely.GranularityInfo]:
    """Return the granularities."""
    return [
        tersely.GranularityInfo(
            name="diagonals",
            implementation="tersely_shapes.granularities:Diagonals",
            summary="Each wrapped diagonal of a matrix.",
            target_kinds=("parameter",),
        ),
        tersely.GranularityInfo(
            name="packed_heads",
            implementation="tersely_shapes.granularities:PackedHeads",
            options=HEADS,
            summary="Each head of a projection that packs queries, keys and values.",
            target_kinds=("parameter",),
        ),
    ]
