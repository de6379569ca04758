"""The verbs: fit, load, predict, evaluate, models, facts, verify, report, remove, cache.

Everything the command line does is here, for Python; the command line only parses and prints.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones, modelcard, saved, verdict
from headstart.backbone import Backbone
from headstart.calibration import Calibration
from headstart.dataset import Dataset, read
from headstart.errors import InputError, ModelError, NotFound, near
from headstart.features import Cache, embed
from headstart.head import CLASSIFICATION, MULTILABEL, TASKS
from headstart.model import Model, Prediction, replay
from headstart.model import load as load_folder
from headstart.project import Project, checked_name, name_from
