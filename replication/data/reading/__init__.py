"""A scan from a file or a DICOM series: axes, units, and what belongs together."""
