"""Files in and out, with geometry, one file per format family. Nothing else reads or writes users' files."""
