"""From what users have on disk to batches on the model grid, and back to the native grid."""
