"""From archives to volumes, to slices, to splits (paper, Sec. 4.1), in rooms that stand in a row.

`getting` the published archives, `reading` scans, `phantom` drawn ones, `fusing` volumes into a store of
`slices`. `chs-net data` runs it from a shell. Import the module that you need; the packages import nothing.
"""
