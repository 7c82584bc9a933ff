"""Avro's primitives by hand, where a generic encoder costs more than the rest of the step.

Numbers are cut into 14-bit pieces and looked up: two bytes a step instead of one.
"""

from __future__ import annotations

_BITS = 14
_MASK = (1 << _BITS) - 1
# Every 14-bit number as the two bytes of a number that goes on, and as one that ends here.
_GOES_ON = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << _BITS))
_ENDS = tuple(bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << _BITS))


def varint(n: int) -> bytes:
    """An unsigned number, seven bits a byte, lowest first."""
    if n <= _MASK:
        return _ENDS[n]
    out = _GOES_ON[n & _MASK]
    n >>= _BITS
    while n > _MASK:
        out += _GOES_ON[n & _MASK]
        n >>= _BITS
    return out + _ENDS[n]


def long(n: int) -> bytes:
    """An Avro `long`."""
    return varint(n << 1 if n >= 0 else (-n << 1) - 1)


# Avro's length prefixes of short strings; longer ones are encoded.
LENGTHS = tuple(long(n) for n in range(1024))


def string(utf8: bytes) -> bytes:
    """An Avro `string` or `bytes` value."""
    return long(len(utf8)) + utf8


def decimal(unscaled: int) -> bytes:
    """An Avro `decimal` over bytes: two's complement, big-endian."""
    return string(unscaled.to_bytes((unscaled.bit_length() >> 3) + 1, "big", signed=True))


def read_long(value: bytes, at: int) -> int:
    """The Avro `long` that begins there; 0 if the value ends within it."""
    n = shift = 0
    for byte in value[at : at + 10]:
        n |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (n >> 1) ^ -(n & 1)
        shift += 7
    return 0
