"""Reads the Kafka topic of an Annals log. Needs Python 3.10 or newer.

What lives here: the acceptance rule and the reading of values, in classes without I/O
(`Partition`, `Record`, `Verdict`); below them a small command line, which needs the package
confluent-kafka. docs/reading-the-topic.md explains the rule. Invariant: `Partition.judge` and
`annals log verify` agree on every record. Deliberately absent: checkpoints; each run reads from
the first offset to the end that the topic had at the start.

    python annals_topic.py --brokers localhost:9092 --topic orders            accepted commits
    python annals_topic.py --brokers localhost:9092 --topic orders --summary  counts and chain heads
"""

import argparse
import collections
import datetime
import hashlib
import json
import operator
import re
import signal
import sys
import uuid
from decimal import Decimal
from typing import NamedTuple

RECORD_VERSION = 1
TERM_STEP_MAX = 1_000
VERSION_MAX = 2**63 - 1


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list  # (name, value) in order; names are str, values are bytes or None


class Verdict(NamedTuple):
    kind: str  # accepted, orphan, foreign or damage
    reason: str  # accepted: claim or commit; orphan: late, losing, duplicate or acknowledged
    position: int = 0
    commit: dict | None = None  # the value of an accepted commit


def _hash(name, *parts):
    return hashlib.sha256(name + b"".join(parts)).digest()


def _number(number, size=8):
    return number.to_bytes(size, "big")


def _sized(data):
    return _number(len(data), 4) + data


def _headers(record):
    """The values of the five headers if the record is a claim or a commit, else nothing."""
    claim = ("annals-kind", "annals-term", "annals-writer", "annals-log", "annals-version")
    commit = claim[:3] + ("annals-position", "annals-previous")
    names = tuple(name for name, _ in record.headers)
    values = [value for _, value in record.headers]
    if record.value is None or names not in (claim, commit) or None in values:
        return None
    is_claim = names == claim
    kind, sizes = (b"claim", [8, 16, 16, 2]) if is_claim else (b"commit", [8, 16, 8, 32])
    if values[0] != kind or [len(value) for value in values[1:]] != sizes:
        return None
    return values if is_claim == (record.key is None) else None


class Partition:
    """The fold of one partition: pass every record to `judge`, in order, from the first offset."""

    def __init__(self, number, acknowledged=()):
        self.acknowledged = frozenset(acknowledged)  # offsets of damage that an operator examined
        self.log = None  # the log's id, fixed by the first claim that counts
        self.term, self.writer, self.position = 0, None, 0
        self.head = _hash(b"annals.genesis.v1", _number(number, 4))
        self.versions, self.frozen = {}, set()
        self.stopped = None  # the verdict that stopped the reading

    def judge(self, record):
        """The verdict on the next record. After damage, there is no other verdict."""
        if self.stopped is None:
            verdict = self._judge(record)
            self.stopped = verdict if verdict.kind == "damage" else None
        return self.stopped or verdict

    def _judge(self, record):
        values = _headers(record)
        if values is None:
            return Verdict("foreign", "foreign")
        term, writer = int.from_bytes(values[1], "big"), values[2]
        if record.key is None:
            return self._judge_claim(term, writer, values, record.value)
        if record.offset in self.acknowledged:
            self.frozen.add(record.key)
        return self._judge_commit(term, writer, values, record)

    def _judge_claim(self, term, writer, values, value):
        if not self.term < term <= self.term + TERM_STEP_MAX or self.log not in (None, values[3]):
            return Verdict("orphan", "losing")
        if int.from_bytes(values[4], "big") > RECORD_VERSION:
            return Verdict("damage", "newer format: update this reader")
        self.term, self.writer, self.log, self.position = term, writer, values[3], self.position + 1
        parts = (values[1], writer, values[3], values[4], _number(self.position), _sized(value))
        self.head = _hash(b"annals.claim.v1", self.head, *parts)
        return Verdict("accepted", "claim", self.position)

    def _judge_commit(self, term, writer, values, record):
        acknowledged = record.offset in self.acknowledged
        position, previous = int.from_bytes(values[3], "big"), values[4]
        if term > self.term:
            if acknowledged:
                return Verdict("orphan", "acknowledged")
            return Verdict("damage", "unclaimed: a commit of a term above every claim")
        if term < self.term or writer != self.writer:
            return Verdict("orphan", "late")
        if position <= self.position:
            return Verdict("orphan", "duplicate")
        linked = position == self.position + 1 and previous == self.head
        if not linked and not acknowledged:
            reason = f"unlinked: it does not continue the chain after position {self.position}"
            return Verdict("damage", reason)
        parts = (values[1], writer, values[3], _sized(record.key), _sized(record.value))
        self.head, self.position = _hash(b"annals.commit.v1", previous, *parts), position
        if record.key in self.frozen:
            return Verdict("orphan", "acknowledged")
        return self._content(record)

    def _content(self, record):
        try:
            commit = read_commit(record.key, record.value)
        except (ValueError, ArithmeticError, RecursionError) as error:
            return Verdict("damage", f"unreadable: {error}")
        version, found = self.versions.get(record.key, 0), commit["from_version"]
        if found != version:
            reason = f"version gap: the stream is at {version}, the commit was decided on {found}"
            return Verdict("damage", reason)
        self.versions[record.key] = version + len(commit.get("events", []))
        return Verdict("accepted", "commit", self.position, commit)


class _Members(dict):
    """A JSON object that knows whether a name occurs twice in it."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.repeated = len(self) != len(pairs)


def _text(pattern):
    is_whole = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: isinstance(value, str) and is_whole(value) is not None


def _whole(limit):
    return lambda value: type(value) is int and 0 <= value <= limit


def _time(value):
    minutes = r"([01]\d|2[0-3]):[0-5]\d"
    pattern = rf"(\d{{4}}-\d\d-\d\d)[Tt]{minutes}:([0-5]\d|60)(\.\d+)?([Zz]|[+-]{minutes})"
    found = re.fullmatch(pattern, value, re.ASCII) if isinstance(value, str) else None
    return found is not None and bool(datetime.date.fromisoformat(found[1]))


def _object(shape):
    def check(value):
        if not isinstance(value, _Members) or value.repeated:
            return False
        for name, (need, is_right) in shape.items():
            absent = name not in value or (need == "?" and value[name] is None)
            if need == "!" and name not in value or not absent and not is_right(value[name]):
                raise ValueError(f"the member {name} is missing or malformed")
        if unknown := value.keys() - shape.keys():
            raise ValueError(f"unknown members: {sorted(unknown)}")
        return True

    return check


_ID = _text(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NAME = _text(r'[!#-\[\]-~]{1,255}')  # printable ASCII without space, quotation mark, backslash
_ANY, _STRING = (lambda _: True), _text(r"(?s:.*)")
_SCHEMA = _whole(2**16 - 1)
# Needed (!), or left out (-), or left out or null (?).
_COMMAND = _object({
    "id": ("!", _NAME), "type": ("!", _STRING), "schema": ("?", _SCHEMA), "data": ("!", _ANY),
    "occurred_at": ("?", _time), "expected_version": ("?", _whole(2**64 - 1)),
})
_EVENT = _object({
    "id": ("!", _ID), "type": ("!", _STRING), "schema": ("!", _SCHEMA), "data": ("!", _ANY),
    "occurred_at": ("?", _time),
})
_COMMIT = _object({
    "commit": ("!", _ID), "tenant": ("-", _text(r"[a-z0-9-]{1,63}")),
    "stream": ("!", _text(r"[a-z][a-z0-9_]{0,62}-[A-Za-z0-9._~-]{1,128}")),
    "from_version": ("!", _whole(VERSION_MAX)), "recorded_at": ("!", _time),
    "command": ("!", _COMMAND),
    "actor": ("?", _object({
        "id": ("!", _STRING), "kind": ("!", _text("user|service|process|import")),
    })),
    "correlation_id": ("?", _NAME), "causation_id": ("?", _NAME), "trace": ("?", _STRING),
    "outcome": ("!", _text("accepted|rejected")),
    "rejection": ("?", _object({
        "code": ("!", _STRING), "detail": ("!", _STRING),
        "facts": ("-", lambda value: isinstance(value, dict)),
    })),
    "events": ("-", lambda value: isinstance(value, list) and all(map(_EVENT, value))),
})


def _no_json(text):
    raise ValueError(f"{text} is not JSON")


def read_commit(key, value):
    """The value of a commit. ValueError: no reader can read it, or it contradicts its key."""
    # A double would change numbers with a fraction, so they become decimals.
    options = {"parse_float": Decimal, "parse_constant": _no_json, "object_pairs_hook": _Members}
    commit = json.loads(value.decode("utf-8"), **options)
    if not _COMMIT(commit):
        raise ValueError("it is not the object of a commit")
    if key.decode("utf-8") != f"{commit.get('tenant', 'main')}/{commit['stream']}":
        raise ValueError("the key does not name the stream of the value")
    events, refused = commit.get("events", []), commit["outcome"] == "rejected"
    if refused != (commit.get("rejection") is not None) or (refused and events):
        raise ValueError("outcome, rejection and events contradict each other")
    if commit["from_version"] + len(events) > VERSION_MAX:
        raise ValueError("the stream's version is too high")
    return commit


class Unreadable(Exception):
    """The topic could not be read; says nothing about the log."""


_CALL_HEADERS = operator.methodcaller("headers")


def headers_of(message):
    """The headers of a message; none if a name is not UTF-8, for such a record is foreign.

    confluent-kafka (2.16) sets an exception for such a name and returns a broken list all the
    same. Python notices this at once only if the call is not an ordinary `message.headers()`.
    """
    try:
        return _CALL_HEADERS(message) or []
    except (SystemError, UnicodeDecodeError):
        return []


def records(kafka, consumer, topic, partition, first, end):
    """The records of a partition from the first offset to the end."""
    consumer.assign([kafka.TopicPartition(topic, partition, first)])
    while first < end:
        message = consumer.poll(30)
        if message is None:
            raise Unreadable(f"no answer for partition {partition} within 30 s")
        if message.error() and message.error().code() == kafka.KafkaError._PARTITION_EOF:
            return  # the last offsets may have no record
        if message.error():
            raise Unreadable(f"partition {partition}: {message.error()}")
        if message.offset() >= end:
            return
        yield Record(message.offset(), message.key(), message.value(), headers_of(message))
        first = message.offset() + 1


def read_partition(fold, number, source, accepted):
    """Folds a partition and calls `accepted` for each accepted commit; returns the summary."""
    count, orphans, events = collections.Counter(), collections.Counter(), 0
    found = {"partition": number, "damage": None, "damage_offset": None}
    for record in source:
        verdict = fold.judge(record)
        count["records"] += 1
        if verdict.kind == "damage":
            found |= {"damage": verdict.reason, "damage_offset": record.offset}
            break
        if verdict.kind != "accepted":
            orphans[verdict.reason] += 1
        elif verdict.commit is None:
            count["claims"] += 1
        else:
            count[verdict.commit["outcome"]] += 1
            events += len(verdict.commit.get("events", []))
            accepted(number, record, verdict)
    counts = {name: count[name] for name in ("records", "claims", "accepted", "rejected")}
    state = {"position": fold.position, "term": fold.term, "head": fold.head.hex()}
    state["log_id"] = fold.log and str(uuid.UUID(bytes=fold.log))
    state |= {"events": events, "streams": len(fold.versions), "orphans": dict(orphans)}
    return found | counts | state


def arguments():
    parser = argparse.ArgumentParser(
        description="Prints the accepted commits of an Annals topic, one JSON object a line.",
        epilog="Exit codes: 0 whole, 2 wrong arguments, 4 the topic could not be read, 5 damage.",
    )
    parser.add_argument("--brokers", required=True, metavar="HOST:PORT[,…]")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partition", type=int, help="read only this one")
    parser.add_argument("--summary", action="store_true", help="print counts and chain heads only")
    parser.add_argument("--acknowledge", action="append", default=[], metavar="PARTITION:OFFSET",
                        help="pass damage that an operator has acknowledged (may be repeated)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of librdkafka, such as security.protocol=SASL_SSL")
    chosen = parser.parse_args()
    try:
        places = [tuple(map(int, place.split(":", 1))) for place in chosen.acknowledge]
        chosen.places = {(partition, offset) for partition, offset in places}
        chosen.settings = dict(setting.split("=", 1) for setting in chosen.set)
    except ValueError:
        parser.error("--acknowledge takes PARTITION:OFFSET, and --set takes NAME=VALUE")
    return chosen


def print_commit(partition, record, verdict):
    # The value as it stands: reading and writing it again would change numbers and order.
    value = record.value.decode("utf-8").replace("\n", " ").replace("\r", " ")
    place = f'"partition":{partition},"offset":{record.offset},"position":{verdict.position}'
    print(f'{{{place},"commit":{value}}}')


def run(kafka, chosen):
    consumer = kafka.Consumer(chosen.settings | {
        "bootstrap.servers": chosen.brokers,
        "group.id": "annals-topic-reader",  # needed by the library; no group is joined
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 10,  # a fetch that waits holds up the next partition's
        # An open transaction of somebody else must not hold this reader up.
        "isolation.level": "read_uncommitted",
    })
    topic = consumer.list_topics(chosen.topic, timeout=30).topics[chosen.topic]
    if topic.error:
        raise Unreadable(f"topic {chosen.topic}: {topic.error}")
    numbers = sorted(topic.partitions) if chosen.partition is None else [chosen.partition]
    show = (lambda *_: None) if chosen.summary else print_commit
    whole, log = True, None
    for number in numbers:
        bounds = consumer.get_watermark_offsets(
            kafka.TopicPartition(chosen.topic, number), timeout=30)
        fold = Partition(number, {offset for at, offset in chosen.places if at == number})
        source = records(kafka, consumer, chosen.topic, number, *bounds)
        found = read_partition(fold, number, source, show)
        if found["damage"] is None and log and fold.log and fold.log != log:
            found |= {"damage": "this partition belongs to another log than the partitions before"}
            found |= {"damage_offset": bounds[0]}
        log = log or fold.log
        whole = whole and found["damage"] is None
        if chosen.summary:
            print(json.dumps(found))
        if found["damage"]:
            place = f"partition {number} offset {found['damage_offset']}"
            print(f"DAMAGE: {place}: {found['damage']}", file=sys.stderr)
    consumer.close()
    return 0 if whole else 5


def main():
    chosen = arguments()
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when the next program does
    try:
        import confluent_kafka as kafka
    except ImportError:
        sys.exit("annals_topic: install its Kafka client first: pip install confluent-kafka")
    try:
        return run(kafka, chosen)
    except (Unreadable, kafka.KafkaException) as error:
        print(f"annals_topic: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
