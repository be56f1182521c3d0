"""Data sets: files on disk to batches on a device."""
