"""Position tokens: in base64url, one byte of form, the log's id (16 bytes), and for each partition
its number (4 bytes) and a position (8 bytes), big-endian."""

from __future__ import annotations

import base64
import struct

_FORM = 1
_HEAD = struct.Struct("!B16s")
_PLACE = struct.Struct("!IQ")


def _parse(token: str) -> tuple[bytes, dict[int, int]] | None:
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    places = len(raw) - _HEAD.size
    if places < 0 or places % _PLACE.size or raw[0] != _FORM:
        return None
    return raw[1 : _HEAD.size], dict(_PLACE.iter_unpack(raw[_HEAD.size :]))


def merge(earlier: str | None, later: str) -> str:
    """A token that is behind neither of both.

    If they belong to different logs, or a newer server wrote one in a form that is not known here,
    it is the later token alone.
    """
    one, two = _parse(earlier) if earlier else None, _parse(later)
    if one is None or two is None or one[0] != two[0]:
        return later
    log, positions = two
    for partition, position in one[1].items():
        positions[partition] = max(position, positions.get(partition, 0))
    raw = _HEAD.pack(_FORM, log) + b"".join(_PLACE.pack(*at) for at in sorted(positions.items()))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
