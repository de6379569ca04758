"""The report: one self-contained HTML page, a pure function of a model's facts.

`words` turns facts into safe text and numbers, `pictures` draws, `sections` says what there is to say, `page` puts it
together with `page.css`. Nothing here computes a figure of merit: the page shows what `fit` found.
"""

from headstart.report.page import render

__all__ = ["render"]
