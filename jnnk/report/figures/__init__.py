"""Pictures, each a function from records, or arrays, to a figure of matplotlib."""

from jnnk.report.figures.overlap import cross_overlap_map

__all__ = ["cross_overlap_map"]
