"""Records of batches on the Redis server that has the accounts.

Each change is one script. ``add`` writes nothing where another process has submitted or ended a batch since the caller
looked, so that no text is in two batches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ..redis import RedisBooks
from ._records import BatchFailure, BatchRecord, BatchRecords, NewBatch

_KEYS = "local RECORDS, TEXTS, VERSION, call = KEYS[1], KEYS[2], KEYS[3], redis.call\n"
READ = _KEYS + "return {call('GET', VERSION) or '0', call('HGETALL', RECORDS)}"
ADD = (
    _KEYS
    + """
-- ARGV: version, then reference, record and texts of each
if call('HEXISTS', RECORDS, ARGV[2]) == 1 then return 1 end
if (call('GET', VERSION) or '0') ~= ARGV[1] then return 0 end
call('INCR', VERSION)
for place = 2, #ARGV, 3 do
  call('HSET', RECORDS, ARGV[place], ARGV[place + 1])
  call('HSET', TEXTS, ARGV[place], ARGV[place + 2])
end
return 1
"""
)
SET_PROVIDER_ID = (
    _KEYS
    + """
local found = call('HGET', RECORDS, ARGV[1])
if not found then return 0 end
local record = cjson.decode(found)
record.provider_id = ARGV[2]
call('HSET', RECORDS, ARGV[1], cjson.encode(record))
return 1
"""
)
END = (
    _KEYS
    + """
-- ARGV: reference, the texts that failed
local found = call('HGET', RECORDS, ARGV[1])
local record = found and cjson.decode(found)
if not record or record.ended == '1' then return 0 end
record.ended = '1'
call('INCR', VERSION)
call('HSET', RECORDS, ARGV[1], cjson.encode(record))
call('HSET', TEXTS, ARGV[1], ARGV[2])
return 1
"""
)
DROP = _KEYS + "call('INCR', VERSION) call('HDEL', RECORDS, ARGV[1]) return call('HDEL', TEXTS, ARGV[1])"


class RedisBatchRecords(BatchRecords):
    """A hash of records, and one of their texts."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._ledger.writing():  # says what is wrong with the server
            yield

    def under_way(self, keys: Container[bytes]) -> tuple[dict[bytes, str], int]:
        with self.transaction():
            version, records = self._read()
            open_ones = [record.reference for record in records if not record.ended]
            found = [(reference, row) for reference in open_ones for row in self._rows(reference)]
            return {key: reference for reference, (key, *_) in found if key in keys}, version

    def add(self, batches: Sequence[NewBatch], seen: int) -> bool:
        if not batches:
            return True
        written = [value for new in batches for value in (new.reference, *_written(new))]
        with self.transaction():
            return bool(self._run(ADD, seen, *written))

    def set_reservation(self, reference: str, reservation: int) -> None:
        """Do nothing: the number was known, and is on record."""

    def set_provider_id(self, reference: str, provider_id: str) -> None:
        with self.transaction():
            self._run(SET_PROVIDER_ID, reference, provider_id)

    def end(self, reference: str, failures: Mapping[bytes, str | None]) -> bool:
        with self.transaction():
            rows = self._rows(reference)
            failed = [(*row[:3], failures[row[0]]) for row in rows if failures.get(row[0]) is not None]
            return bool(self._run(END, reference, _texts(failed)))

    def drop(self, reference: str) -> None:
        with self.transaction():
            self._run(DROP, reference)

    def all(self) -> list[BatchRecord]:
        with self.transaction():
            _, records = self._read()
        return sorted(records, key=lambda record: (record.at, record.reference))

    def texts(self, reference: str) -> dict[bytes, int]:
        with self.transaction():
            return {key: tokens for key, _, tokens, _ in self._rows(reference)}

    def failures(self, reference: str) -> list[BatchFailure]:
        with self.transaction():
            found = [(position, reason) for _, position, _, reason in self._rows(reference) if reason is not None]
        return [BatchFailure(position, reason) for position, reason in sorted(found)]

    # The server

    @property
    def _books(self) -> RedisBooks:
        assert isinstance(self._ledger.books, RedisBooks)
        return self._ledger.books

    def _run(self, script: str, *arguments: str | float) -> Any:
        keys = [self._books.key(name) for name in ("batches", "batch_texts", "batch_version")]
        return self._books.server.run(script, keys, arguments)

    def _read(self) -> tuple[int, list[BatchRecord]]:
        version, content = self._run(READ)
        pairs = zip(content[::2], content[1::2], strict=True)
        return int(version), [_record(reference.decode(), json.loads(fields)) for reference, fields in pairs]

    def _rows(self, reference: str) -> list[tuple[bytes, int, int, str | None]]:
        """Return the texts of a batch: key, position, tokens, and why it failed."""
        content = self._books.server.client.hget(self._books.key("batch_texts"), reference)
        rows = json.loads(content) if content else []
        return [(bytes.fromhex(key), position, tokens, failure) for key, position, tokens, failure in rows]


def _written(new: NewBatch) -> tuple[str, str]:
    """Return the record and the texts of a batch; values are texts, because Lua's numbers are inexact."""
    record = {
        "at": repr(time.time()),
        "ended": "0",
        "model": new.candidate.name,
        "fingerprint": new.candidate.fingerprint,
        "reservation": str(new.reservation),
        "texts": str(len(new.texts)),
        "input_type": new.spending.input_type,
        "tag": new.spending.tag,
    }
    return json.dumps(record, ensure_ascii=False), _texts([(*text, None) for text in new.texts])


def _texts(rows: Sequence[tuple[bytes, int, int, str | None]]) -> str:
    return json.dumps([(key.hex(), position, tokens, failure) for key, position, tokens, failure in rows])


def _record(reference: str, fields: Mapping[str, Any]) -> BatchRecord:
    return BatchRecord(
        reference,
        datetime.fromtimestamp(float(fields["at"]), UTC),
        fields.get("provider_id"),
        fields["ended"] == "1",
        fields["model"],
        fields["fingerprint"],
        int(fields["reservation"]),
        int(fields["texts"]),
        fields["input_type"],
        fields["tag"],
    )
