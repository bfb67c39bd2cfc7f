"""The client: commands, read models, streams and batches of one server.

Its typed methods, which name the commands and read models of the document, are in `domain`.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, TypeVar
from urllib.parse import quote

import httpx

from ._batch import Batch, Outcome
from ._position import merge
from ._wire import IDEMPOTENCY_WINDOW, Deadline, Request, ask
from .errors import Problem
from .generated import Client
from .generated.models import CommandAnswer, CommandLine, StreamEvents

if TYPE_CHECKING:
    from typing_extensions import Self

    from .domain import RecordedEvent

# What an answer may take on its way, in addition to the server's own time limit.
_GRACE = 5.0

R = TypeVar("R")


class Model(Protocol):
    """A type of the document."""

    def to_dict(self) -> dict[str, Any]: ...


class SendOptions(TypedDict, total=False):
    """How a command is sent."""

    id: str
    """Your name for this intent; the client makes one up if absent."""
    expected_version: int
    """The stream version that you saw; 0: the stream has no events yet."""
    occurred_at: datetime | str
    """When it happened in the business; absent: now, by the server's clock."""
    actor: str
    correlation_id: str
    causation_id: str
    traceparent: str
    retry_for: float


class Core:
    """A client of one server; its methods may be called from several threads."""

    def __init__(
        self,
        url: str,
        *,
        retry_for: float = 60.0,
        read_for: float = 10.0,
        attempt: float = 10.0,
        tenant: str | None = None,
        actor: str | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """A client of the server at `url`; nothing is sent yet. Times are in seconds.

        A command without an answer is sent again for `retry_for`. A query may take `read_for` with
        all its tries. The server may take `attempt` for one try of a command. `actor` says who
        sends the commands, as `kind:id`. `http` has what else your server needs, such as
        certificates.
        """
        self._url = url.rstrip("/")
        self._retry_for, self._read_for, self._attempt = retry_for, read_for, attempt
        self._tenant, self._actor = tenant, actor
        self._http = http or httpx.Client()
        self._position: str | None = None
        self._lock = threading.Lock()
        self.raw = Client(base_url=self._url)
        """The generated client: every route of the document, one request each, without retries."""

    def close(self) -> None:
        """Closes the connections; so does the end of a `with` statement."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def position(self) -> str | None:
        """The position of what this client wrote, for `observe` of another one."""
        return self._position

    def observe(self, position: str) -> None:
        """Takes up a position: later reads show at least what was written up to there."""
        with self._lock:
            self._position = merge(self._position, position)

    def _send(
        self,
        stream: str,
        command: str,
        data: Model | Mapping[str, Any],
        *,
        id: str | None = None,
        expected_version: int | None = None,
        occurred_at: datetime | str | None = None,
        actor: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        traceparent: str | None = None,
        retry_for: float | None = None,
    ) -> CommandAnswer:
        id = id or str(uuid.uuid4())
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": id,
            "Annals-Timeout-Ms": _milliseconds(self._attempt),
            "If-Match": None if expected_version is None else f'"{expected_version}"',
            "Annals-Occurred-At": _time(occurred_at),
            "Annals-Actor": actor or self._actor,
            "Annals-Correlation-Id": correlation_id,
            "Annals-Causation-Id": causation_id,
            "traceparent": traceparent,
        }
        request = Request(
            "POST",
            self._path("streams", stream, command),
            self._headers(headers),
            content=json.dumps(_plain(data)).encode(),
            command_id=id,
        )
        deadline = Deadline(self._limit(retry_for))
        try:
            answer = ask(self._http, request, deadline, self._attempt + _GRACE)
        except Problem as problem:
            self._note(problem.document)
            raise
        self._note(answer)
        return CommandAnswer.from_dict(answer)

    def batch(
        self,
        lines: Iterable[CommandLine | Mapping[str, Any]],
        *,
        retry_for: float | None = None,
        lines_max: int = 1_000,
    ) -> Iterator[Outcome]:
        """Sends many commands, in order for each stream, and yields their outcomes as they come.

        Each request has `lines_max` lines, unless they are large or the last ones. Raises
        `NoAnswer` after `retry_for` without any progress.
        """
        kind, _, name = (self._actor or "").partition(":")
        actor = {"kind": kind, "id": name} if name else None
        named = (
            {"id": str(uuid.uuid4()), "tenant": self._tenant, "actor": actor, **_given(line)}
            for line in lines
        )
        headers = {
            "Content-Type": "application/x-ndjson",
            "Annals-Timeout-Ms": _milliseconds(self._attempt),
        }
        batch = Batch(
            self._http,
            self._path("commands"),
            self._headers(headers),
            self._limit(retry_for),
            self._attempt + _GRACE,
            lines_max,
        )
        for outcome in batch.outcomes(named):
            if outcome.accepted:
                self.observe(outcome.accepted.position)
            elif outcome.refused:
                self._note(outcome.refused.document)
            yield outcome

    def events(
        self,
        stream: str,
        *,
        from_version: int = 1,
        follow: bool = False,
        poll: float = 0.5,
        wait: bool = True,
        min_position: str | None = None,
        read_for: float | None = None,
    ) -> Iterator[RecordedEvent]:
        """The events of a stream in their order; with `follow`, also those that come later.

        With `follow` it never ends: it asks for further events every `poll` seconds.
        """
        path = ("streams", stream, "events")
        while True:
            page: dict[str, Any] = {"events": [], "next": None}
            try:
                page = self._ask(path, {"from_version": from_version}, wait, min_position, read_for)
            except Problem as problem:
                if problem.code != "stream_not_found" or not follow:
                    raise
            else:
                for event in StreamEvents.from_dict(page).events:
                    yield event
                    from_version = event.version + 1
            if page["next"] is None:
                if not follow:
                    return
                time.sleep(poll)

    def _ask(
        self,
        path: tuple[str, ...],
        params: dict[str, str | int],
        wait: bool,
        min_position: str | None,
        read_for: float | None,
    ) -> dict[str, Any]:
        if min_position is None and wait:
            min_position = self._position
        read_for = self._read_for if read_for is None else read_for
        # The server gives up a little earlier than this client, so that its answer says why.
        server = _milliseconds(min(0.9 * read_for, 60.0))
        headers = {"Annals-Min-Position": min_position, "Annals-Timeout-Ms": server}
        request = Request("GET", self._path(*path), self._headers(headers), params=params)
        return ask(self._http, request, Deadline(read_for), read_for)

    def _limit(self, retry_for: float | None) -> float:
        retry_for = self._retry_for if retry_for is None else retry_for
        if retry_for >= IDEMPOTENCY_WINDOW:
            raise ValueError("retry_for must be shorter than the time for which ids are remembered")
        return retry_for

    def _note(self, answer: dict[str, Any]) -> None:
        if isinstance(answer.get("position"), str):
            self.observe(answer["position"])

    def _path(self, *parts: str) -> str:
        return "/".join([self._url, "v1", *(quote(part, safe="") for part in parts)])

    def _headers(self, own: Mapping[str, str | None]) -> dict[str, str]:
        headers = {"Annals-Tenant": self._tenant, **own}
        return {name: value for name, value in headers.items() if value is not None}


class ReadModel(Generic[R]):
    """The rows of a read model."""

    def __init__(self, core: Core, model: str, row: Callable[[dict[str, Any]], R]) -> None:
        self._core, self._model, self._row = core, model, row

    def get(
        self,
        key: str,
        *,
        wait: bool = True,
        min_position: str | None = None,
        read_for: float | None = None,
    ) -> R | None:
        """One row, by the columns of its key, joined by commas.

        With `wait`, it shows what this client's own commands did.
        """
        path = ("read", self._model, key)
        try:
            return self._row(self._core._ask(path, {}, wait, min_position, read_for))
        except Problem as problem:
            if problem.code == "row_not_found":
                return None
            raise

    def rows(
        self,
        *,
        limit: int = 100,
        after: str | None = None,
        wait: bool = True,
        min_position: str | None = None,
        read_for: float | None = None,
    ) -> Iterator[R]:
        """All rows in the order of their keys, in pages of `limit`."""
        while True:
            params: dict[str, str | int] = {"limit": limit}
            if after is not None:
                params["after"] = after
            path = ("read", self._model)
            page = self._core._ask(path, params, wait, min_position, read_for)
            yield from map(self._row, page["rows"])
            after = page["next"]
            if after is None:
                return

    def __iter__(self) -> Iterator[R]:
        return self.rows()


def _plain(data: Any) -> Any:
    return data.to_dict() if hasattr(data, "to_dict") else data


def _given(line: CommandLine | Mapping[str, Any]) -> dict[str, Any]:
    """The members of a line that are not absent."""
    given = {name: value for name, value in _plain(line).items() if value is not None}
    return {**given, "data": _plain(given["data"])}


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))


def _time(time: datetime | str | None) -> str | None:
    if not isinstance(time, datetime):
        return time
    if time.tzinfo is None:
        raise ValueError("occurred_at needs a time zone")
    return time.isoformat()
