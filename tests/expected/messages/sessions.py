"""Calls of a session in the wrong order or with the wrong data, and what finalize() does."""

NOTHING_KEPT = "nothing of it is kept"
FOLDS_FACTORS = "finalize() folds the factors of the input into"
DIVIDES_FACTORS = "divides the factors of the input out again"
STAYS_INSTRUMENTED = "a plain module cannot mask or quantize"
SHARED_SCALE = "its output channels share a scale"
CALIBRATE_FIRST = "call session.calibrate(batches) before session.compress()"
CALIBRATE_EACH_SESSION = (
    "and again in a session that was loaded, since batches are not saved with it"
)
BLOCK_BY_BLOCK = "is compressed block by block on calibration batches"
RANKS_BY_CALIBRATION = "ranks by what calibration sees"
RANGE_OF_CALIBRATION = "is quantized by the range that calibration sees"
SESSION_LOADED = "in a session that was loaded"
NO_BATCH = "calibrate() was given no batch"
ONE_SHAPE = "without the batch; calibrate with one shape"
CHECK_BATCHES = "check the batches and the model's weights"
NOT_SEEN_OF_STUDENT = "of the student was not seen"
NOT_SEEN_OF_TEACHER = "of the teacher was not seen"
NO_TEACHER = "the session has no teacher"
GIVE_TEACHER = "give it to tersely.attach(..., teacher=...)"
STEP_FIRST = "train some steps with session.step() after optimizer.step()"
LOSS_AND_STEP_FIRST = "train some steps with session.total_loss"
SEEN_NONE = "has seen none"
OR_A_SCHEDULE = "or give the stage a schedule"
END_SOONER = "or end an earlier period sooner by its 'until'"
COMPRESS_FIRST = "call session.compress() first"
NO_SCALE_YET = "there is no scale yet"
NOT_AVERAGED = (
    "differs between the processes: your optimizer moves session.parameters(), whose gradients "
    "DistributedDataParallel does not average; average them before optimizer.step(), or leave "
    "them to session.step()"
)
ON_META = "is on the meta device"
LINEAR_PROJECTION = "projection: linear maps the student's last dimension"


def asked_for(ratio: float) -> str:
    """A target whose sparsity is not the one of its entry."""
    return f"asked for a sparsity of {ratio}"


def features(found: int, taken: int) -> str:
    """Inputs of another width than the weight's."""
    return f"have {found} features and the weight takes {taken}"


def inputs_make_singular() -> str:
    """The products of inputs cannot be inverted."""
    return (
        "the Gram matrix of its inputs is singular and cannot be inverted; calibrate with more "
        "batches or raise percdamp"
    )
