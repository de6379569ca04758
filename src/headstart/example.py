"""An example is content; its key is the hash of its content, so equal contents are one example."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16


def key(content: bytes) -> bytes:
    """The 16-byte BLAKE2b key of one example's canonical bytes (a text's UTF-8)."""
    return blake2b(content, digest_size=KEY_BYTES).digest()


def keys(contents: Iterable[bytes]) -> NDArray[np.uint64]:
    """Keys of many contents as (n, 2) uint64, the form the feature cache looks up."""
    joined = b"".join(blake2b(content, digest_size=KEY_BYTES).digest() for content in contents)
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
