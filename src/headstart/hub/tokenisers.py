"""The tokeniser of a text backbone, brought into one tokenizer.json.

Templates, added Python and whatever else a tokenizer_config.json may hold are never run. A tokeniser that exists only as
a SentencePiece model or as Python is refused; a BERT vocabulary is turned into a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.errors import InputError, ModelError
from headstart.hub import layout

FILE = "tokenizer.json"


def take(
    places: Sequence[Path], new: Path, config: Mapping[str, Any], *, lower: bool = False, prefix: str = ""
) -> list[str]:
    """Write tokenizer.json into `new` from the first place that has one; gives what is to be noted.

    `lower` makes texts lower case first, `prefix` stands before every text; both become part of the tokeniser.
    """
    notes = []
    found = next((one for one in places if (one / FILE).is_file()), None)
    if found is not None:
        path = layout.plain(found / FILE, found.parent if found.name == "onnx" else found)
        if path.stat().st_size > layout.TOKENISER_LIMIT:
            raise ModelError(f"{FILE} has {path.stat().st_size:,} bytes; {layout.TOKENISER_LIMIT:,} are allowed.")
        content = path.read_bytes()
        made = _parsed(content)
    else:
        made = _wordpiece(places, config)
        content = made.to_str().encode()
        notes.append("its tokeniser was made from vocab.txt")
    if lower or prefix:
        from tokenizers import normalizers

        steps: list[Any] = [normalizers.Prepend(prefix)] if prefix else []
        steps += [normalizers.Lowercase()] if lower else []
        made.normalizer = normalizers.Sequence([*steps, *([made.normalizer] if made.normalizer else [])])
        content = made.to_str().encode()
        if prefix:
            notes.append(f"{prefix!r} is put before every text, as its documentation asks")
    (new / FILE).write_bytes(content)
    return notes


def _parsed(content: bytes) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{FILE} cannot be read: {str(error)[:200]}.") from error


def _wordpiece(places: Sequence[Path], config: Mapping[str, Any]) -> Any:
    """The tokeniser of a BERT vocabulary (vocab.txt). Raises InputError where there is none."""
    found = next((one for one in places if (one / "vocab.txt").is_file()), None)
    said = layout.json(found / "tokenizer_config.json") if found else {}
    kind = str(said.get("tokenizer_class", "BertTokenizer")).removesuffix("Fast")
    if found is None or kind not in ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"):
        raise InputError(
            "it has no tokenizer.json: its tokeniser exists only as a SentencePiece model or as Python code. Save it "
            "once as tokenizer.json where you trust it (AutoTokenizer.from_pretrained(...).save_pretrained(...))."
        )
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = (found / "vocab.txt").read_text("utf-8").splitlines()
    vocabulary = {word: number for number, word in enumerate(words)}
    marks = {mark: str(said.get(f"{mark}_token", f"[{mark.upper()}]")) for mark in ("unk", "cls", "sep")}
    if missing := [mark for mark in marks.values() if mark not in vocabulary]:
        raise ModelError(f"vocab.txt holds no {missing[0]}.")
    stated = config.get("vocab_size")
    if isinstance(stated, int) and len(words) > stated:
        raise ModelError(f"vocab.txt holds {len(words):,} words, and config.json states {stated:,}.")
    made = Tokenizer(models.WordPiece(vocabulary, unk_token=marks["unk"], max_input_chars_per_word=100))
    accents = said.get("strip_accents")
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=said.get("tokenize_chinese_chars", True) is not False,
        strip_accents=accents if isinstance(accents, bool) else None,
        lowercase=said.get("do_lower_case", True) is not False,
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = marks["cls"], marks["sep"]
    made.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    return made
