"""Plain C99 from an int8 file: a static arena, no heap, the integers of the QDQ file."""

from compress.c99.verification import Verification, summary, verify
from compress.c99.writer import Exported, write_c99

__all__ = ["Exported", "Verification", "summary", "verify", "write_c99"]
