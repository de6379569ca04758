"""The verbs: fit, advise, tune, distil, load, predict, evaluate, select, shrink, export, models, facts, verify, report,
remove, cache; those for base models: bases, add_base, remove_base; and those of serving: remote, deploy, rollback,
undeploy, deployments, history, behind, keys_create, keys_list, keys_revoke.

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
from headstart.api.serving import (
    behind,
    deploy,
    deployments,
    history,
    keys_create,
    keys_list,
    keys_revoke,
    refusals,
    remote,
    rollback,
    undeploy,
)
from headstart.stream import is_one, predict_file, predict_one

__all__ = [
    "add_base", "advise", "bases", "behind", "cache", "choice_page", "deploy", "deployments", "distil", "evaluate",
    "export", "facts", "fit", "history", "is_one", "keys_create", "keys_list", "keys_revoke", "load", "models", "predict",
    "predict_file", "predict_one", "refusals", "remote", "remove", "remove_base", "report", "rollback",
    "select", "shrink", "summary", "tune", "undeploy", "verify",
]  # fmt: skip
