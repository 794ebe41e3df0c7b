"""The networks that MedSegDiff-V2 is compared with, one file each."""
