"""Photos that claim more than they are."""

from __future__ import annotations


def webp_that_claims(width: int, height: int) -> bytes:
    """Return a lossless WebP of 34 bytes that has nothing behind its header."""
    bits = (width - 1) | (height - 1) << 14
    pixels = b"\x2f" + bits.to_bytes(4, "little") + bytes(9)
    chunk = b"VP8L" + len(pixels).to_bytes(4, "little") + pixels
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk


def dib_that_claims(width: int, height: int, *, length: int = 90_000) -> bytes:
    """Return an uncompressed DIB in 24 bits that is cut off."""
    header = (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return (header + b"\1\0\x18\0" + bytes(24)).ljust(length, b"\0")
