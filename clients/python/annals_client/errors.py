"""What a request can fail with."""

from __future__ import annotations

from typing import Any

# The members of a refusal that are not facts of the rule.
_FRAME = frozenset(
    "type title status detail instance code correlation_id command_id stream version position "
    "repeated line_number retry_after_ms".split()
)


class Problem(Exception):
    """The server answered with an error."""

    def __init__(self, document: dict[str, Any], command_id: str | None = None) -> None:
        super().__init__(f"{document['code']}: {document.get('detail', '')}")
        self.document = document
        self.code: str = document["code"]
        self.status: int = document["status"]
        self.command_id = command_id
        """The id of the command, if the request was one."""


class Refused(Problem):
    """A rule refused the command."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the rule says about its refusal."""
        return {name: fact for name, fact in self.document.items() if name not in _FRAME}


class VersionConflict(Problem):
    """The stream has another version than the command expected: read it again, decide again."""

    @property
    def current_version(self) -> int:
        return int(self.document["current_version"])

    @property
    def expected_version(self) -> int:
        return int(self.document["expected_version"])


class NoAnswer(Exception):
    """There was no answer in time; `__cause__` says why the last try failed.

    A command may have taken effect or not: send the same command with the same id again to learn
    it.
    """

    def __init__(self, cause: object, command_id: str | None = None) -> None:
        super().__init__(f"no answer in time: {cause!r}")
        self.command_id = command_id
        """The id of the command, if the request was one."""


def problem_of(document: dict[str, Any], command_id: str | None = None) -> Problem:
    """The error of a problem document."""
    kind = Problem
    if document["status"] == 422 and document["code"] != "command_id_reused":
        kind = Refused
    elif document["code"] == "version_conflict":
        kind = VersionConflict
    return kind(document, command_id)
