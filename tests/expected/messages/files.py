"""Files and folders that a job or a session wrote, and what a job calls."""

INCOMPLETE_JSON = "is damaged: it is not complete JSON"
FINISHED_RUN = "give the output folder of a finished `tersely run`"
ABSENT = "does not exist; give the"
OTHER_JOB = "another version of the job"
CHANGED_AFTER = "was changed after it was"
WRITING_VERSION = "install the version that wrote it"
OUTPUT_ERROR = "relative error of the output"
AMONG_PACKAGES = "or among the installed packages"
MAPPING_OF_NAMES = "a mapping of names to"
NOTHING_TO = "so there is nothing to"
NOT_IN_SAFETENSORS = "which a safetensors file cannot hold"


def no_report(folder: object) -> str:
    """``tersely report`` of a folder that holds no finished run."""
    return f"{folder} does not exist; {FINISHED_RUN}"


def no_finished_run(folder: object, found: str) -> str:
    """What is asked of a finished run, of a folder that holds none."""
    return f"{folder} {found}; {FINISHED_RUN}"


def goes_on_after(*parts: str) -> str:
    """What a resumed job prints first."""
    return f"continuing after: {', '.join(parts)}\n"


def without_resume() -> str:
    """What to do about a checkpoint that cannot be used."""
    return "run the job again without --resume"


def unfit_checkpoint() -> str:
    """A checkpoint of another model than the one that the job builds."""
    return "does not fit the model that the job builds now"
