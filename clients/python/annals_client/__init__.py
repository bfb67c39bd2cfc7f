"""A typed client of an Annals server; README.md shows its use."""

from ._batch import Outcome
from ._client import ReadModel, SendOptions
from .domain import Annals, CommandName, ModelName, RecordedEvent
from .errors import NoAnswer, Problem, Refused, VersionConflict

__all__ = [
    "Annals",
    "CommandName",
    "ModelName",
    "NoAnswer",
    "Outcome",
    "Problem",
    "ReadModel",
    "RecordedEvent",
    "Refused",
    "SendOptions",
    "VersionConflict",
]
