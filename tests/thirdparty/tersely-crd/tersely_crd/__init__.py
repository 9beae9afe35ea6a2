"""The face of tersely-crd: two distillation losses; imports no torch."""

import tersely

tersely_api = 1
COUNT = {"type": "integer", "minimum": 1}
CRD = {
    "type": "object",
    "properties": {
        "samples": {**COUNT, "description": "How many samples the data set has."},
        "features": {**COUNT, "default": 128},
        "negatives": {**COUNT, "default": 16},
        "temperature": {"type": "number", "exclusiveMinimum": 0, "default": 0.07},
        "indices": {"type": ["string", "integer"], "default": "indices"},
    },
    "required": ["samples"],
    "additionalProperties": False,
    "examples": [{"samples": 8, "features": 4, "temperature": 0.5}],
}


@tersely.hookimpl
def tersely_distillation_losses() -> list[tersely.LossInfo]:
    """Return the losses."""
    return [
        tersely.LossInfo(
            name="crd",
            implementation="tersely_crd.losses:Contrastive",
            options=CRD,
            batch_options=("indices",),
            summary="Tells a sample's teacher from those of other samples.",
            paper="Tian et al., Contrastive Representation Distillation, ICLR 2020",
        ),
        tersely.LossInfo(
            name="fsp",
            implementation="tersely_crd.losses:flow",
            targets=2,
            summary="How features of one layer go with those of another.",
            paper="Yim et al., A Gift from Knowledge Distillation, CVPR 2017",
        ),
    ]
