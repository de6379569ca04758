"""How good are these answers, and how sure is that: figures, intervals, and the pieces of the report made of them."""

from headstart.evaluation.figures import (
    ClassFigures,
    accuracy,
    class_figures,
    confusion,
    macro_f1,
    micro_f1,
    most_confused,
    number_figures,
)
from headstart.evaluation.intervals import Comparison, Proportion, blocks, compare, interval, proportion, wilson
from headstart.evaluation.reports import report_classification, report_multilabel, report_regression

__all__ = [
    "ClassFigures",
    "Comparison",
    "Proportion",
    "accuracy",
    "blocks",
    "class_figures",
    "compare",
    "confusion",
    "interval",
    "macro_f1",
    "micro_f1",
    "most_confused",
    "number_figures",
    "proportion",
    "report_classification",
    "report_multilabel",
    "report_regression",
    "wilson",
]
