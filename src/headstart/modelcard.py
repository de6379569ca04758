"""README.md of a saved model: a model card in the Hugging Face Hub's format (YAML front matter, then Markdown)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def render(card: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The card as Markdown. Everything that comes from data is quoted, so that no text of it is read as markup."""
    name, backbone = card["name"], card["backbone"]
    metrics, image = _metrics(facts), facts.get("modality") == "image"
    kind = "image" if image else "text"
    front = [
        "---",
        "library_name: headstart",
        f"base_model: {json.dumps(backbone['source'])}",
        f"pipeline_tag: {f'{kind}-classification' if facts['task'] != 'regression' else 'tabular-regression'}",
        "tags: [headstart, transfer-learning]",
        "model-index:",
        f"- name: {json.dumps(name)}",
        "  results:",
        f"  - task: {{type: {json.dumps(f'{kind}-' + facts['task'])}}}",
        f"    dataset: {{type: private, name: {json.dumps(facts['data']['name'])}}}",
        "    metrics:" if metrics else "    metrics: []",
        *(f"    - {{type: {kind}, value: {value:.6g}, name: {json.dumps(label)}}}" for kind, value, label in metrics),
        "---",
    ]
    body = [
        f"# {name}",
        "",
        *[_quiet(sentence) + "  " for sentence in facts["verdict"]],
        "",
        "| | |",
        "|---|---|",
        f"| task | {facts['task']} |",
        f"| labels | {_quiet(', '.join(card['labels'][:50]))}{' ...' if len(card['labels']) > 50 else ''} |",
        f"| made from | {_quiet(facts['data']['name'])}, {facts['data']['used']:,} {'pictures' if image else 'examples'}, SHA-256 `{facts['data']['digest']}` |",
        f"| base model | {backbone['source']}, {backbone['licence']}, {backbone['precision']}, cut at {backbone['cut']}; "
        f"{_weights(backbone, facts)} |",
        f"| head | {card['head']['name']}{' with unlabelled rows' if card['head']['pool'] else ''}{' and mirrored views' if facts['head'].get('views') else ''}: {_quiet(card['head']['why'])} |",
        f"| made | {card['made']}, headstart {card['versions']['headstart']}, seed {card['seed']} |",
        "",
        "## Use",
        "",
        "```python",
        "import headstart",
        "",
        'model = headstart.load("path/to/this/folder")',
        'model.predict(["picture.jpg"])' if image else 'model.predict(["a text"])',
        "```",
        "",
        "`unknown` in an answer means: this input is unlike the training data, do not rely on the label.",
        "`report.html` shows every figure; `headstart verify` checks that the model answers as when it was trained.",
        "",
        "## Rights",
        "",
        f"The base model is under {backbone['licence']}. The rights in the training data are those of whoever owns it; "
        "they are not recorded here.",
        "",
    ]
    return "\n".join(front + body)


def _weights(backbone: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What of the base is in the folder, and what has to be there besides."""
    if not backbone.get("carried"):
        return "none of its weights are in this folder"
    if backbone.get("said"):
        return (
            f"{_quiet(backbone['said'])}: only what was changed is in this folder, and the base "
            f"{_quiet(backbone['name'])} must be installed"
        )
    if (facts.get("distilled") or {}).get("to") == "static":
        return "this folder holds vectors of its tokens, taught by a larger model, and no network"
    return "its weights below the cut are in this folder"


def _metrics(facts: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    found = []
    for which, label in (("test", "given test rows"), ("estimate", "cross-fitted")):
        for kind in ("accuracy", "macro_f1", "micro_f1", "r2", "mae"):
            if facts[which] and kind in facts[which]:
                found.append(
                    ({"macro_f1": "f1", "micro_f1": "f1"}.get(kind, kind), facts[which][kind], f"{kind}, {label}")
                )
    return found


def _quiet(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = "".join(ch if ch.isprintable() else " " for ch in text)
    return "".join("\\" + ch if ch in "\\`*_{}[]<>#|!~&" else ch for ch in line)
