"""Claims of texts on a Redis server, so that of many processes one pays for a text that several need.

A claim is a key with the id of its call, which the server forgets after ``LEASE`` seconds. As long as the process lives
its claims are renewed in a thread; those of a killed process end. What was embedded is marked for ``REMEMBERED``
seconds, for a process that had read the cache before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from secrets import token_hex

from .._process import PerProcess, threads
from ..cache import ClaimState
from ..errors import OutOfThreadsError
from ._server import Server

LEASE = 20.0
"""Seconds after which the texts of a killed process are free. Claims are renewed three times as often."""
REMEMBERED = 10.0
"""Seconds for which the server remembers that a text was embedded."""
MOST_KEYS = 500
"""Of one script, which holds the server for about a millisecond."""

CLAIM = """
local states = {}
for index, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if not held or (held == 'done' and ARGV[2 + index] == '1') then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    states[index] = 1
  elseif held == ARGV[1] then
    states[index] = 1
  elseif held == 'done' then
    states[index] = 2
  else
    states[index] = 0
  end
end
return states
"""
RENEW = """
for index, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1 + index] then redis.call('PEXPIRE', key, ARGV[1]) end
end
return 1
"""
RELEASE = """
for index, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    if index <= tonumber(ARGV[3]) then
      redis.call('SET', key, 'done', 'PX', ARGV[2])
    else
      redis.call('DEL', key)
    end
  end
end
return 1
"""
STATES: tuple[ClaimState, ...] = ("other", "own", "done")


class _Held:
    """The claims of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls: dict[str, set[bytes]] = {}
        """The keys that each call holds."""
        self.renewing = False
        self.ended = threading.Event()


class RedisClaims:
    """Claims of texts by name, on a Redis server.

    Args:
        server: the Redis server.
        lease: seconds after which claims of a killed process end.
        remembered: seconds for which what was embedded is marked.
    """

    def __init__(self, server: Server, lease: float = LEASE, remembered: float = REMEMBERED) -> None:
        self._server, self._lease, self._remembered = server, lease, remembered
        self._held = PerProcess(_Held)

    def begin(self) -> str:
        call = token_hex(8)
        held = self._held.get()
        with held.lock:
            held.calls[call] = set()
        return call

    def end(self, call: str) -> None:
        held = self._held.get()
        with held.lock:
            held.calls.pop(call, None)

    def claim(self, call: str, names: Sequence[bytes], again: Sequence[bytes] = ()) -> list[ClaimState]:
        held, anew = self._held.get(), set(again)
        states: list[ClaimState] = []
        for part in _parts(names):
            arguments: list[str | int] = [call, round(self._lease * 1000), *(int(name in anew) for name in part)]
            answers = self._server.run(CLAIM, self._keys(part), arguments)
            own = [name for name, answer in zip(part, answers, strict=True) if answer == 1]
            with held.lock:
                if own and call in held.calls:  # its call may have given up waiting for the server
                    held.calls[call].update(own)
                    self._renew_from_now_on(held)
            states += [STATES[answer] for answer in answers]
        return states

    def release(self, call: str, embedded: Sequence[bytes], others: Sequence[bytes] = ()) -> None:
        held = self._held.get()
        with held.lock:
            if call in held.calls:
                held.calls[call].difference_update(embedded, others)
        for part in _parts(embedded):
            self._server.run(RELEASE, self._keys(part), [call, round(self._remembered * 1000), len(part)])
        for part in _parts(others):
            self._server.run(RELEASE, self._keys(part), [call, 0, 0])

    def _keys(self, names: Sequence[bytes]) -> list[bytes]:
        return [self._server.key("{claims}", name) for name in names]

    def _renew_from_now_on(self, held: _Held) -> None:
        if not held.renewing:
            try:
                threads.submit(self._renew, held)
                held.renewing = True
            except OutOfThreadsError:
                return

    def _renew(self, held: _Held) -> None:
        """Renew the claims of this process until it has none."""
        while True:
            held.ended.wait(self._lease / 3)
            with held.lock:
                claims = {name: call for call, names in held.calls.items() for name in names}
                if not claims:
                    held.renewing = False
                    return
            for part in _parts(list(claims)):
                calls = [claims[name] for name in part]
                try:
                    self._server.run(RENEW, self._keys(part), [round(self._lease * 1000), *calls])
                except Exception:  # noqa: BLE001 - a claim that is not renewed may end
                    break


def _parts(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (names[start : start + MOST_KEYS] for start in range(0, len(names), MOST_KEYS))
