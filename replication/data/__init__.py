"""From CT volumes to the slice store that everything else reads (paper, Sec. 4.1).

`phantom` draws synthetic volumes, `fusion` turns volumes into slices, and
`python -m replication.data` runs both from a shell. Import the module that you need; this package
itself imports nothing.
"""
