"""What holds up an answer, worked out beside the lanes: it takes some fifty answers for one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Contents
from headstart.backbones.onnx import on_this_thread
from headstart.errors import InputError, Overloaded, TooLate
from headstart.reasons import Reasons
from headstart.rowcache import Cache
from headstart.serving.asked import Reply, Said

MOST = 16  # answers of one question that are explained
WAITING = 8  # questions that may wait
KEPT = 8  # models whose training examples stay in memory

Result = Reply | BaseException


class Explaining:
    """One thread, a queue, and the training examples of the models asked last."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "explaining")
        self._kept: OrderedDict[str, Reasons] = OrderedDict()
        self._lock, self._waiting, self._closing = threading.Lock(), 0, False

    def of(
        self,
        reply: Reply,
        contents: Contents,
        X: Mapping[str, NDArray[np.float32]],
        done: Callable[[Result], None],
        gone: Callable[[], bool],
    ) -> None:
        """Give a reply with its reasons to `done`, or what went wrong; TooLate when `gone` says that nobody waits for it."""
        if (n := len(reply.said) * len(contents)) > MOST:
            done(InputError(f"{n} answers are too many to explain at once; ask for at most {MOST} with why."))
            return
        with self._lock:
            full = self._waiting >= WAITING
            self._waiting += not full
        if full:
            done(Overloaded("too many answers wait to be explained.", 5.0))
            return
        self._pool.submit(self._explain, reply, contents, X, done, gone)

    def close(self) -> None:
        """Take no more, and stop after the answer in work."""
        self._closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _explain(
        self, reply: Reply, contents: Contents, X: Any, done: Callable[[Result], None], gone: Callable[[], bool]
    ) -> None:
        def go_on(_: int = 0) -> None:
            if gone() or self._closing:
                raise TooLate("nobody waits for this explanation any more.")

        result: Result
        try:
            go_on()
            with on_this_thread():  # the others are the lanes'
                said = tuple(
                    replace(one, why=self._reasons(one).of(contents, X[one.served.fingerprint], one.answers, go_on))
                    for one in reply.said
                )
            result = replace(reply, said=said)
        except Exception as error:
            result = error
        finally:
            with self._lock:
                self._waiting -= 1
        done(result)

    def _reasons(self, said: Said) -> Reasons:
        found = self._kept.pop(said.served.digest, None)
        if found is None:
            found = Reasons(said.served.model, Cache(), pictures=False)
        self._kept[said.served.digest] = found
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found
