"""Position tokens. In base64url: one byte of form, the log's id (16 bytes), one byte that says how
many bits a position has; then as numbers the runs of consecutive partitions: how many there are, and
for each how many partitions lie between it and the one before, and its length; the positions, packed
without gaps, the highest bit first; the CRC-32 of all that (4 bytes, big-endian). A number has seven
bits in each byte, the lowest ones first; the highest bit says that another byte follows."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator

_FORM = 2


def _numbers(raw: Iterator[int]) -> Iterator[int]:
    number = shift = 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0


def _number(number: int) -> bytes:
    raw = bytearray()
    while number >= 0x80:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*raw, number])


def _parse(token: str) -> tuple[bytes, dict[int, int]] | None:
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    content, check = raw[:-4], raw[-4:]
    if content[:1] != bytes([_FORM]) or zlib.crc32(content).to_bytes(4, "big") != check:
        return None
    log, bits, rest = content[1:17], content[17], iter(content[18:])
    numbers = _numbers(rest)
    partitions: list[int] = []
    end = 0
    for _ in range(next(numbers)):
        first = end + next(numbers)
        end = first + next(numbers)
        partitions.extend(range(first, end))
    packed = bytes(rest)
    all_bits = int.from_bytes(packed, "big") >> (len(packed) * 8 - len(partitions) * bits)
    places = {}
    for partition in reversed(partitions):
        places[partition] = all_bits & ((1 << bits) - 1)
        all_bits >>= bits
    return log, places


def _write(log: bytes, places: dict[int, int]) -> str:
    bits = max([1, *(position.bit_length() for position in places.values())])
    runs: list[list[int]] = []
    all_bits = 0
    for partition, position in sorted(places.items()):
        if runs and sum(runs[-1]) == partition:
            runs[-1][1] += 1
        else:
            runs.append([partition, 1])
        all_bits = all_bits << bits | position
    raw = bytes([_FORM]) + log + bytes([bits]) + _number(len(runs))
    end = 0
    for first, length in runs:
        raw += _number(first - end) + _number(length)
        end = first + length
    size = -(-len(places) * bits // 8)
    raw += (all_bits << (size * 8 - len(places) * bits)).to_bytes(size, "big")
    raw += zlib.crc32(raw).to_bytes(4, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def merge(earlier: str | None, later: str) -> str:
    """A token that is behind neither of both.

    If they belong to different logs, or a newer server wrote one in a form that is not known here,
    it is the later token alone.
    """
    if earlier is None or earlier == later:
        return later
    one, two = _parse(earlier), _parse(later)
    if one is None or two is None or one[0] != two[0]:
        return later
    log, places = two
    for partition, position in one[1].items():
        places[partition] = max(position, places.get(partition, 0))
    return _write(log, places)
