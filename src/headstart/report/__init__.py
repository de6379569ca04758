"""The report: one self-contained HTML page, a pure function of a model's facts.

`words` turns facts into safe text and numbers, `pictures` draws, `quality`, `mistakes`, `trust`, `making`, `tuning`,
`distilling` and `shrinking` say what there is to say, `page` puts it together, and `shell` is the document around it with
`page.css`. Nothing here computes a figure of merit: the page shows what `fit`, `tune`, `distil` and `shrink` found.
"""

from headstart.report.page import render

__all__ = ["render"]
