"""How data sets lie on disk: one file per layout. They list files and read none of them but descriptions."""

from medsegdiff.data.layouts import folder  # noqa: F401  (they register themselves)
