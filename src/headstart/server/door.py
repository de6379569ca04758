"""Who may come in, and how often: API keys, their scopes and their rates, the same over HTTP and over gRPC."""

from __future__ import annotations

import time
from collections.abc import Sequence

from headstart.apikeys import Key, Keyring
from headstart.errors import Denied, Overloaded
from headstart.server.settings import Settings

LONGEST = 1024  # characters of what comes as authorization


class Door:
    """The keys of one server, and what each has used of its rate."""

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        self.keyring, self._settings = keyring, settings
        self._rates: dict[str, tuple[float, float]] = {}  # key id -> (requests left, when that was)

    @property
    def locked(self) -> bool:
        """Whether a key is needed: also when the last one was revoked, unless the server was started as --insecure."""
        if self._settings.insecure:
            return self.keyring.known
        return self.keyring.ever or not self._settings.loopback

    def key(self, sent: Sequence[str], needed: str | None) -> Key | None:
        """Whose request it is: `sent` is what came as authorization, `needed` the scope; None where no key is needed.

        Raises Denied, and Overloaded beyond the key's rate.
        """
        if needed is None or not self.locked:
            return None
        if not sent:
            raise Denied("no API key came with the request. Send it as: Authorization: Bearer hs_...", 401)
        if len(sent) > 1:
            raise Denied("two API keys came with the request. Send one.", 401)
        [token] = sent
        key = None
        if len(token) <= LONGEST and token[:7].lower() == "bearer ":
            key = self.keyring.check(token[7:].strip())
        if key is None:
            raise Denied("this API key is not known here, has expired or was revoked.", 401)
        if needed not in key.scopes:
            may = " and ".join(sorted(key.scopes)) or "do nothing"
            raise Denied(f"the API key {key.name!r} may {may}; this needs the scope {needed!r}.", 403)
        if key.rate is not None:
            self._take(key, key.rate)
        return key

    def _take(self, key: Key, rate: float) -> None:
        """Take one of the requests a key may make: `rate` a second, as many at once."""
        most, now = max(1.0, rate), time.monotonic()
        left, at = self._rates.get(key.id, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1:
            wait = (1 - left) / rate if rate > 0 else 3600.0
            raise Overloaded(f"the API key {key.name!r} may make {rate:g} requests a second.", wait)
        self._rates[key.id] = left - 1, now
