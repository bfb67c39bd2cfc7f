"""One request, sent again until it has an answer. Every try sends the same bytes."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from .errors import NoAnswer, problem_of

# The statuses after which the same may be sent again: not attempted, or the outcome is unknown.
REPEATABLE = frozenset((408, 429, 502, 503, 504))
# How long a server remembers a command's id, unless its log was created with another window.
IDEMPOTENCY_WINDOW = 24 * 60 * 60.0
# Mistakes of the program: no request was sent, and none could be.
MISTAKES = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
_PAUSE_FIRST = 0.1
_PAUSE_MAX = 5.0


class Deadline:
    """A time limit, in seconds. It also counts the time for which the machine slept."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._wall, self._steady = time.time(), time.monotonic()

    def left(self) -> float:
        passed = max(time.time() - self._wall, time.monotonic() - self._steady)
        return max(0.0, self._seconds - passed)


class Backoff:
    """Pauses that double, each shortened at random, so that clients do not retry in step."""

    def __init__(self) -> None:
        self._pause = _PAUSE_FIRST

    def wait(self, deadline: Deadline, asked: float) -> bool:
        """Waits: at least as long as the server asks. False, at once, if too little time is left.
        """
        pause = max(asked, self._pause * random.uniform(0.5, 1))
        self._pause = min(self._pause * 2, _PAUSE_MAX)
        if pause >= deadline.left():
            return False
        time.sleep(pause)
        return True


@dataclass
class Request:
    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None = None
    params: dict[str, str | int] = field(default_factory=dict)
    command_id: str | None = None


def json_of(response: httpx.Response) -> dict[str, Any] | None:
    try:
        document = json.loads(response.content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def problem_document(response: httpx.Response) -> dict[str, Any]:
    """The problem of an answer; an intermediary may have answered without a document."""
    document = json_of(response) or {}
    if isinstance(document.get("code"), str):
        return {**document, "status": response.status_code}
    return {
        "status": response.status_code,
        "code": f"http_{response.status_code}",
        "detail": f"the answer was {response.status_code}, and not a server's",
    }


def retry_after(headers: httpx.Headers, document: dict[str, Any]) -> float:
    """How long the server asks to wait before another try, in seconds."""
    if "retry_after_ms" in document:
        return float(document["retry_after_ms"]) / 1000
    seconds = headers.get("retry-after", "")
    return float(seconds) if seconds.isdecimal() else 0.0


def ask(
    http: httpx.Client, request: Request, deadline: Deadline, attempt: float
) -> dict[str, Any]:
    """Sends a request until it has an answer that counts, or until the deadline.

    Returns what was asked for; raises a `Problem`, or `NoAnswer`.
    """
    backoff = Backoff()
    while True:
        asked = 0.0
        failure: Exception
        try:
            response = http.request(
                request.method,
                request.url,
                params=request.params,
                headers=request.headers,
                content=request.content,
                timeout=max(0.001, min(attempt, deadline.left())),
            )
        except MISTAKES:
            raise
        except httpx.TransportError as error:
            failure = error
        else:
            document = json_of(response) if response.is_success else None
            if document is not None:
                return document
            problem = problem_document(response)
            failure = problem_of(problem, request.command_id)
            if response.status_code not in REPEATABLE:
                raise failure
            asked = retry_after(response.headers, problem)
        if not backoff.wait(deadline, asked):
            raise NoAnswer(failure, request.command_id) from failure
