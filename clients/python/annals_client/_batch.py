"""Many commands: sent in requests of lines, and sent again until each has an outcome.

A line counts as done only when the server has told its outcome. The lines that are not done are
sent again before any new line, in their order and under the same ids; so the lines of a stream keep
their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from ._wire import (
    IDEMPOTENCY_WINDOW,
    MISTAKES,
    REPEATABLE,
    Backoff,
    Deadline,
    problem_document,
    retry_after,
)
from .errors import NoAnswer, Problem, Refused, problem_of
from .generated.models import CommandAnswer

# The most bytes of lines in one request, unless a single line has more.
_BYTES_MAX = 256 * 1024


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command of a batch: exactly one of the three is there."""

    line: dict[str, Any]
    accepted: CommandAnswer | None = None
    refused: Refused | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Line:
    document: dict[str, Any]
    content: bytes


@dataclass(frozen=True)
class Batch:
    """How lines are sent; times are in seconds."""

    http: httpx.Client
    url: str
    headers: dict[str, str]
    retry_for: float
    silence: float
    lines_max: int

    def outcomes(self, documents: Iterable[dict[str, Any]]) -> Iterator[Outcome]:
        for lines in self._chunks(documents):
            deadline, backoff = Deadline(self.retry_for), Backoff()
            # The reader of the outcomes may be slow; then the server may have forgotten the ids.
            remembered = Deadline(IDEMPOTENCY_WINDOW)
            while lines:
                turned_away: list[Line] = []
                answered, asked = 0, 0.0
                failure: Exception = ValueError("the answer ended before its last line")
                try:
                    for answer, line in zip(self._exchange(lines, deadline), lines):
                        answered += 1
                        if answer["status"] in REPEATABLE:
                            turned_away.append(line)
                            asked = max(asked, answer.get("retry_after_ms", 0) / 1000)
                            failure = problem_of(answer, line.document["id"])
                            continue
                        yield _outcome(line.document, answer)
                        deadline.restart()
                        backoff = Backoff()
                except MISTAKES:
                    raise
                except (httpx.TransportError, ValueError) as error:
                    failure = error
                except Problem as error:
                    if error.status not in REPEATABLE:
                        raise
                    asked, failure = error.document["retry_after_ms"] / 1000, error
                lines = turned_away + lines[answered:]
                if not lines:
                    break
                if not remembered.left() or not backoff.wait(deadline, asked):
                    raise NoAnswer(failure, lines[0].document["id"]) from failure

    def _chunks(self, documents: Iterable[dict[str, Any]]) -> Iterator[list[Line]]:
        """What one request holds."""
        chunk: list[Line] = []
        size = 0
        for document in documents:
            line = Line(document, json.dumps(document).encode() + b"\n")
            if len(chunk) >= self.lines_max or (chunk and size + len(line.content) > _BYTES_MAX):
                yield chunk
                chunk, size = [], 0
            chunk.append(line)
            size += len(line.content)
        yield chunk

    def _exchange(self, lines: list[Line], deadline: Deadline) -> Iterator[dict[str, Any]]:
        """One request; yields the answers to its lines as they come."""
        content = b"".join(line.content for line in lines)
        timeout = max(0.001, min(self.silence, deadline.left()))
        with self.http.stream(
            "POST", self.url, headers=self.headers, content=content, timeout=timeout
        ) as response:
            if not response.is_success:
                response.read()
                problem = problem_document(response)
                asked = retry_after(response.headers, problem)
                raise Problem({**problem, "retry_after_ms": asked * 1000})
            for text in response.iter_lines():
                yield json.loads(text)


def _outcome(line: dict[str, Any], answer: dict[str, Any]) -> Outcome:
    if answer["status"] < 300:
        return Outcome(line, accepted=CommandAnswer.from_dict(answer))
    problem = problem_of(answer, line["id"])
    if isinstance(problem, Refused):
        return Outcome(line, refused=problem)
    return Outcome(line, problem=problem)
