"""How Sphinx makes the site of these pages, without a network: `make docs`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "extensions"))
TOLD = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "medsegdiff"
author = "The medsegdiff developers"
project_copyright = author
release = version = TOLD["version"]
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "sources",
]
exclude_patterns = ["_templates", "extensions", "cluster", "gallery", "**sg_execution_times.rst"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
default_role = "literal"
highlight_language = "text"

autosummary_generate = True
templates_path = ["_templates"]
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"[\\/]plot_",
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 60,
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": None,
    "remove_config_comments": True,
    "write_computation_times": False,
    "show_signature": False,
}

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "medsegdiff"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_nav_level": 1,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
}
