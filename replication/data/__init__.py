"""From archives to volumes, to slices, to splits, to batches (paper, Sec. 4.1); `phantom` draws synthetic volumes.

`chs-net data` runs it from a shell. Import the module that you need; this package itself imports nothing.
"""
