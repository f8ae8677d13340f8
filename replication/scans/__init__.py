"""A scan in, masks out: read, prepare, find lungs, clean them, find infection, report, write."""
