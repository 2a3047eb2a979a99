"""The documentation as a site: ``sphinx-build docs site`` (extra ``docs``)."""

import fedsparse_jax

project, author, release = "fedsparse_jax", "the fedsparse_jax authors", fedsparse_jax.__version__
extensions = [
    *("sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"),
    *("sphinx.ext.apidoc", "myst_parser", "sphinxcontrib.mermaid"),
]
apidoc_modules = [
    {"path": "../fedsparse_jax", "destination": "api", "automodule_options": {"members"}}
]  # a page a room
apidoc_module_first = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
html_theme = "furo"
html_title = "fedsparse_jax"
exclude_patterns = ["examples", "api/modules.rst"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
suppress_warnings = ["myst.xref_missing", "ref.python"]
