"""How Sphinx builds these pages."""

from importlib.metadata import version as version_of

project = "tersely"
author = "The tersely developers"
project_copyright = "2026, The tersely developers"
release = version_of("tersely")
version = ".".join(release.split(".")[:2])

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples/*/**"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = False
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"tersely {version}"
