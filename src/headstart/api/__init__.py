"""The verbs: fit, advise, tune, distil, load, predict, evaluate, select, shrink, export, models, facts, verify, report,
remove, cache, and those for base models: bases, add_base, remove_base.

Everything the command line does is here, for Python; the command line only parses and prints.
"""

from headstart.api.choosing import add_base, advise, bases, choice_page, remove_base, select
from headstart.api.making import distil, fit, shrink, tune
from headstart.api.managing import (
    cache,
    evaluate,
    export,
    facts,
    load,
    models,
    predict,
    remove,
    report,
    summary,
    verify,
)  # fmt: skip
from headstart.stream import is_one, predict_file, predict_one

__all__ = [
    "add_base", "advise", "bases", "cache", "choice_page", "distil", "evaluate", "export", "facts", "fit", "is_one", "load", "models", "predict",
    "predict_file", "predict_one", "remove", "remove_base", "report", "select", "shrink", "summary", "tune", "verify",
]  # fmt: skip
