"""Folders as people have them: pairs side by side, parts and sub-folders, a folder for each case."""
