"""Plugins and libraries: missing, refused, or returning the wrong thing."""

NO_SUCH_PROVIDED = "neither a plugin nor anything that a plugin provides is called"
PLUGINS_LIST = "'tersely plugins list' shows what is installed"
MIGHT_PROVIDE = "which might provide it, is"
FAMILY_NOT_INSTALLED = "is not installed: pip install"
LIBRARY_NOT_INSTALLED = "which is not installed; install it with: pip install"
WRITTEN_FOR = "it is written for plugin API"
THIS_API = "this tersely has plugin API"
AGREEING_RELEASES = "install releases of both that agree"
NO_API = "does not state the plugin API"
LOSS_DOES_NOT_DEPEND = "the loss does not depend on"
SCORES_EXPECTED = "expected a tensor of scores"
NO_LEVELS_DECLARED = "it does not declare UsesLevels"


def options_are_open() -> str:
    """A descriptor's options accept anything."""
    return (
        "options accepts unknown keys, so a misspelled option would be ignored silently; set "
        "additionalProperties to false"
    )
