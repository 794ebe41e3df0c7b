"""How data sets lie on disk: one file per layout. They list files and read none of them but descriptions.

Those that tell most of themselves are asked first whether a folder is theirs.
"""

from medsegdiff.data.layouts import nnunet, msd, manifest, tree, folder  # noqa: F401, I001  (they register themselves)
