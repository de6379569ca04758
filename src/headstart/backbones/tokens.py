"""Texts into token numbers, with the tokenizer.json of a published network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.errors import InputError, ModelError

LIMIT = 64 * 2**20  # bytes of a tokenizer.json


def tokeniser(path: Path, tokens: int) -> Any:
    """The tokeniser in a file, which cuts a text after `tokens` tokens and pads nothing. Raises ModelError."""
    from tokenizers import Tokenizer

    if path.stat().st_size > LIMIT:
        raise ModelError(f"{path.name} has {path.stat().st_size:,} bytes, and {LIMIT:,} are allowed.")
    try:
        found = Tokenizer.from_file(str(path))
        found.no_padding()
        found.enable_truncation(tokens)
    except Exception as error:  # tokenizers raises Exception itself
        raise ModelError(f"{path.name} is no tokeniser: {' '.join(str(error).split())[:200]}.") from None
    return found


def tokenise(tokeniser: Any, texts: Sequence[str], tokens: int) -> list[list[int]]:
    """Token numbers of every text, at least one and at most `tokens`. Raises InputError on a text that is not Unicode.

    Of a long text only as much is read as is needed: a beginning that ends at a space and fills all places.
    """
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text number {i} of the call is a {type(text).__name__}, not a str.")
    rows: list[list[int]] = [[]] * len(texts)
    left, limit = list(range(len(texts))), 16 * tokens
    while left:
        parts, whole = [], []
        for i in left:
            end = max(texts[i].rfind(" ", 0, limit), texts[i].rfind("\n", 0, limit)) if len(texts[i]) > limit else -1
            parts.append(texts[i][:end] if end > 0 else texts[i])
            whole.append(end <= 0)
        try:
            encoded = tokeniser.encode_batch_fast(parts)
        except (TypeError, UnicodeEncodeError) as error:  # the tokeniser does not say which
            wrong = next((i for i, text in enumerate(texts) if any("\ud800" <= c <= "\udfff" for c in text)), 0)
            raise InputError(f"text number {wrong} of the call is not Unicode: a lone surrogate.") from error
        again = []
        for i, one, all_of_it in zip(left, encoded, whole, strict=True):
            rows[i] = list(one.ids) or [0]  # a tokeniser without marks makes nothing of an empty text
            if len(one.ids) < tokens and not all_of_it:
                again.append(i)
        left, limit = again, limit * 8
    return rows


def counted(tokeniser: Any, texts: Sequence[str], tokens: int) -> tuple[list[int], list[int]]:
    """For every text how many tokens it makes, marks at its ends not counted, and how many of them are unknown."""
    marks = len(tokenise(tokeniser, [""], tokens)[0])
    unknown = {tokeniser.token_to_id(name) for name in ("[UNK]", "<unk>")} - {None}
    rows = tokenise(tokeniser, texts, tokens)
    return [max(0, len(row) - marks) for row in rows], [sum(token in unknown for token in row) for row in rows]
