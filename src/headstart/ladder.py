"""The ladder from cheap to dear, and whether the next rung can pay: what frozen features say of tuning.

Letters: n examples, c classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError

MAJORITY, NO_NETWORK, STATIC, LINEAR, ALL = "majority", "no-network", "static", "linear", "all"
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
FEW = 30  # held-out rows below which nothing is foretold
LEAST = 0.01  # a gain below a point is not worth a network of one's own
TOLD = 0.02  # a gain from which `fit` speaks of it
TOPICS, GATE = 0.7, 0.15  # lift from which labels are topics, and how far below it they begin to be
SOME, MORE, LOST = 0.2, 0.4, 0.12  # share of the error that tuning removes, what is added at most, and when
WIDE = 0.3  # of the error, to either side; half of it for topics, and more where much is lost
EPOCHS, PARTS, BACK = (
    10,
    4.0,
    3.0,
)  # of tuning on folds: passes, whole trainings in five folds, cost of a step in forwards


def seconds(text: str | float) -> float:
    """A time such as '90', '90s', '10m' or '1.5h' in seconds. Raises InputError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|)\s*", str(text).lower())
    value = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < value < 1e9:
        raise InputError(f"{text!r} is not a time to keep to: write seconds, or 90s, 10m, 1h.")
    return value


def rungs(blocks: int) -> list[int]:
    """How many blocks below the top are tried, the fewest first: 1, 2, 3, then all of them."""
    return sorted({k for k in (1, 2, 3, blocks) if 0 < k <= blocks})


def named(k: int, blocks: int) -> str:
    """The rung of the last k of all blocks."""
    return ALL if k >= blocks else f"blocks:{k}"


def effort(n: int, ms: float, above: float, *, epochs: float = EPOCHS) -> float:
    """Seconds to tune a rung on folds, before any was: n examples, ms for one through the whole network, and the share
    of its operations above the tap. A step costs three forwards (one there, two back); five folds are four trainings.
    """
    return n * ms / 1000 * ((1 - above) + BACK * above * epochs * PARTS)


def majority(T: NDArray[Any], task: str) -> NDArray[np.float64]:
    """How right the same answer to everything is on each row (n,): the most frequent label, the labels that most rows
    have, or the mean. Right is 1 or 0, the F1 of the row, or minus the squared error over the variance.

    T: (n, c) targets. The answer is taken from the rows it is judged on, which flatters it a little.
    """
    T = np.asarray(T, np.float64)
    if task == "regression":
        return np.asarray(-((T[:, 0] - T[:, 0].mean()) ** 2) / max(float(T[:, 0].var()), 1e-12))
    if task == "multilabel":
        said = T.mean(0) > 0.5
        size = said.sum() + (T > 0).sum(1)
        return np.where(size > 0, 2 * (T[:, said] > 0).sum(1) / np.maximum(size, 1), 1.0)
    return np.asarray(T[:, T.sum(0).argmax()] > 0, np.float64)


@dataclass(frozen=True)
class Signs:
    """What frozen features say of tuning."""

    lift: float  # neighbours that carry the same label at the deepest cut, beyond chance: 0 at chance, 1 always
    lost: float | None = None  # accuracy of the shallower half of the cuts less that of the deepest; None not measured
    noise: float = 0.0  # standard error of that


def paying(accuracy: float, *, n: int, signs: Signs) -> tuple[float, float, float, str]:
    """What tuning would bring over the best frozen rung: (expected gain, low, high, in words), as shares of 1.

    accuracy: of that rung, out of fold on n rows. Tuning removes a share of the remaining error,

        share = gate * (0.2 * (1 + lost / 0.12, from 0.25 to 1) + 0.4 * (lost / 0.12, from 0 to 1))

    where the gate is 1 below a lift of 0.55 and falls to 0 at 0.7. Where neighbours agree (lift), the labels are topics,
    which the base was trained to bring together: tuning ties. Where they do not, some of the error goes: little where
    accuracy rises with depth, for then the base is on its way already, and most of it where the shallow cuts know more
    than the deepest (lost), for then the base throws away what these labels need.

    Measured with MiniLM, all six blocks tuned by one recipe, one draw each, on 300 to 800 texts kept aside (so give or
    take 2 points; where tuning lost it is not kept, and the gain is 0). Lift, `lost` in points, and points of accuracy:

        labels                       a class   frozen    lift    lost    forecast       tuned
        77 intents (Banking77)            10     84.5    0.65    -7.0    0.4 (0 - 4)     +0.5
        7 intents (Snips)                 10     93.8    0.74    +1.8    0.0 (0 - 2)     +2.6
        5 topics of Banking77             24     93.3    0.80    -5.8    0.0 (0 - 1)     -0.8
        spam (SMS)                        32     95.8    0.65    +3.9    0.5 (0 - 3)     -2.4
        5 diseases (abstracts)            16     56.7    0.28    -4.1    5.7 (0 - 27)    -4.0
        8 kinds of request (NLU++)        24     90.4    0.57    -3.5    1.2 (0 - 5)     +4.7
        plot or opinion                   32     83.9    0.43    +1.2    3.9 (0 - 15)    +7.5
        mood of film reviews              32     59.9   -0.06    +4.7   14.3 (0 - 46)    +7.7
        the same                         100     70.3    0.11    -3.4    4.3 (0 - 16)    +1.4
        first word of a question          32     92.2    0.27   +19.5    4.7 (0 - 10)    +7.2
        a negation in it                  32     70.3    0.05   +18.0   17.8 (0 - 35)   +16.6
        says "I"                          32     91.1    0.18   +27.3    5.3 (0 - 12)    -5.0

    The root mean square error is 3.6 points, that of always saying the mean gain 4.8, on the sets it was made from; one
    of twelve gains lies outside its interval, by half a point. Surest is what matters most: the first four, topics, gain
    1 point on average, the others 6.

    The constants were set by hand on these few, so the interval is wide: 0.3 of the error to either side, half of that
    for topics and twice that where much is lost, and the standard errors of accuracy and `lost` besides. Pictures, other
    bases and fewer blocks were not measured. Rank correlation with the gain, on ten of these: lift -0.48, H-score -0.41,
    share of variance between classes -0.36, headroom 0.35, LogME -0.33, `lost` 0.27, effective rank 0.04; so nothing else
    is asked for.
    """
    gate = min(1.0, max(0.0, (TOPICS - signs.lift) / GATE))
    lost, noise = (0.0, LOST / 2) if signs.lost is None else (signs.lost, signs.noise)
    error, give = 1 - accuracy, float(np.sqrt(max(accuracy * (1 - accuracy), 1 / (n + 4)) / max(n, 1)))
    wide = WIDE * (1 + gate) / 2 * (1 + min(1.0, max(0.0, lost / LOST)))

    def share(lost: float) -> float:
        return gate * (SOME * min(1.0, max(0.25, 1 + lost / LOST)) + MORE * min(1.0, max(0.0, lost / LOST)))

    gain = share(lost) * error
    low = min(gain, max(0.0, share(lost - noise) - wide) * max(0.0, error - give))
    high = max(gain, min(1.0, share(lost + noise) + wide) * min(1.0, error + give))
    return gain, low, high, _says(gain, low, high, n, signs)


def _says(gain: float, low: float, high: float, n: int, signs: Signs) -> str:
    """The forecast in words."""
    if n < FEW:
        return f"{n:,} held-out examples are too few to foretell what tuning would bring ({100 * low:.0f} to {100 * high:.0f} points)."
    between = f"about {100 * gain:.0f} points more ({100 * low:.0f} to {100 * high:.0f})"
    if gain < LEAST:
        why = (
            "neighbours share labels, as they do where labels are topics"
            if signs.lift > TOPICS - GATE
            else "little is wrong"
        )
        return f"Tuning would probably not pay: {why} ({100 * gain:.1f} points expected, {100 * high:.0f} at most)."
    if signs.lost is not None and signs.lost > max(LOST / 2, 2 * signs.noise):
        return (
            f"Tuning would probably pay, {between}: what these labels need is seen by the shallow layers and lost on the way "
            "up, and tuning brings it back."
        )
    if signs.lift < TOPICS - GATE and gain >= TOLD:
        return f"Tuning would probably pay, {between}: the nearest examples often carry other labels, so these are not topics."
    return f"Tuning might pay, {between}."


def worth(accuracy: float, *, n: int, signs: Signs, name: str) -> str | None:
    """A sentence for whoever has only fitted a head on frozen features, where tuning would probably pay; else None.

    name: of the model that was fitted.
    """
    gain, low, high, _ = paying(accuracy, n=n, signs=signs)
    if n < FEW or gain < TOLD:
        return None
    return (
        f"Tuning the final blocks would probably help here: these labels are hard to tell by nearest examples, as kinds of "
        f"question or moods are, and of such it removes a part of the errors (about {100 * gain:.0f} points, "
        f"{100 * low:.0f} to {100 * high:.0f}). Try: headstart tune {name}"
    )
