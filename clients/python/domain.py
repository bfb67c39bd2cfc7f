"""Writes `annals_client/domain.py`: the client's methods, typed by the commands and read models of
an OpenAPI document.

Usage: python domain.py DOCUMENT > annals_client/domain.py
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from openapi_python_client.utils import ClassName

HEAD = '''\
"""The client, typed by the commands and read models of the document. Made by `clients/build`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Union, overload

from . import models as m
from ._client import Core, ReadModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._client import SendOptions
    from .generated.models import CommandAnswer

CommandName = Literal[{commands}]
"""The commands of the domain."""

ModelName = Literal[{rows}]
"""The read models."""

RecordedEvent = {events}
"""An event of a stream, in the form of its type."""

_ROWS: dict[str, Any] = {{{row_types}}}


class Annals(Core):
    """A client of one server."""
'''

SEND = '''
    {overload}def send(
        self,
        stream: str,
        command: {name},
        data: {data},
        **options: Unpack[SendOptions],
    ) -> CommandAnswer:
'''

SEND_BODY = '''\
        """Sends a command until it has an answer.

        Raises `Refused` if a rule refuses it, `VersionConflict`, another `Problem`, or `NoAnswer`.
        """
        return self._send(stream, command, data, **options)
'''

READ = "\n    {overload}def read(self, model: {name}) -> ReadModel[{row}]:{end}\n"

READ_BODY = '''\
        """A read model: its rows one by one (iterate over it), or one row by its key."""
        return ReadModel(self, model, _ROWS[model].from_dict)
'''


def class_of(schema: dict[str, Any]) -> str:
    return f"m.{ClassName(schema['$ref'].rsplit('/')[-1], '')}"


def type_of(media: dict[str, Any]) -> str:
    """The generated class of a request's or answer's JSON; a body may also be null."""
    schema = media["content"]["application/json"]["schema"]
    return class_of(schema.get("anyOf", [schema])[0])


def quoted(names: dict[str, str]) -> str:
    return ", ".join(json.dumps(name) for name in names)


def write(document: dict[str, Any]) -> str:
    commands, rows = {}, {}
    for path, item in document["paths"].items():
        if (found := re.fullmatch(r"/v1/streams/{stream}/(\w+)", path)) and "post" in item:
            commands[found[1]] = type_of(item["post"]["requestBody"]) + " | Mapping[str, Any]"
        if found := re.fullmatch(r"/v1/read/(\w+)/{key}", path):
            rows[found[1]] = type_of(item["get"]["responses"]["200"])
    row_types = ", ".join(f"{json.dumps(name)}: {row}" for name, row in rows.items())
    forms = document["components"]["schemas"]["RecordedEvent"]["anyOf"]
    text = HEAD.format(
        commands=quoted(commands),
        rows=quoted(rows),
        row_types=row_types,
        events=f"Union[{', '.join(class_of(form) for form in forms)}]",
    )
    # A method has either no overload or several.
    if len(commands) > 1:
        for name, data in commands.items():
            name = f"Literal[{json.dumps(name)}]"
            send = SEND.format(overload="@overload\n    ", name=name, data=data)
            text += send.rstrip() + " ...\n"
    data = next(iter(commands.values())) if len(commands) == 1 else "Any"
    text += SEND.format(overload="", name="CommandName", data=data) + SEND_BODY
    for name, row in rows.items():
        name = f"Literal[{json.dumps(name)}]"
        text += READ.format(overload="@overload\n    ", name=name, row=row, end=" ...")
    return text + READ.format(overload="", name="ModelName", row="Any", end="") + READ_BODY


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.write(write(json.load(file)))
