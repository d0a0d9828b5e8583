"""Reading one odd value safely: text that PostgreSQL can hold, token counts, booleans, JSON and Python literals.

Nothing here raises on any input; what cannot be read is None.
"""

import ast
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from collectors.dialects.types import Scalar

#: Longest attribution value, model name, response id ... kept, in characters. Longer ones are cut and flagged.
TEXT_LIMIT = 256
#: Longest span name kept, in characters.
NAME_LIMIT = 200
#: Longest JSON or Python literal parsed, in characters. Longer ones state nothing.
DOCUMENT_LIMIT = 262_144
#: Largest believable token count of one call.
COUNT_LIMIT = 1_000_000_000
#: Largest believable cost of one call, in USD.
USD_LIMIT = Decimal(1_000_000)

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SCRUBBED = "[Scrubbed"
_ABSENT = frozenset({"", "None", "null", "undefined", "NaN"})


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """Text PostgreSQL can hold: NUL and lone surrogates become U+FFFD; at most `limit` characters."""
    if len(text) > limit:
        text = text[:limit]
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return _UNSTORABLE.sub("\ufffd", text)


def text_of(value: Scalar) -> str | None:
    """A value as text, None when it states nothing: null, empty, "None", or scrubbed by the client.

    JSON-quoted scalars (``"\\"search\\""``, seen from MLflow and Langfuse) lose their quotes.
    """
    if isinstance(value, str):
        text = value.strip()
        if len(text) >= 2 and text[0] == '"' and text[-1] == '"':
            text = _unquoted(text).strip()
        return None if text in _ABSENT or text.startswith(_SCRUBBED) else text
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return None if not math.isfinite(value) else str(int(value)) if value.is_integer() else str(value)
    return None


def _unquoted(text: str) -> str:
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return inner if isinstance(inner, str) else text


def count_of(value: Scalar) -> int | None:
    """A token count, or None. Integral floats count (JavaScript has no integers); text and booleans do not."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        if not value.is_integer():  # False for NaN and infinities too
            return None
        value = int(value)
    if isinstance(value, int) and 0 <= value <= COUNT_LIMIT:
        return value
    return None


def loose_count_of(value: Scalar) -> int | None:
    """Like `count_of`, for clients that write numbers as text (Codex, Gemini CLI and older Claude Code events)."""
    if isinstance(value, str) and len(value) <= 12 and value.isascii() and value.strip().isdigit():
        value = int(value)
    return count_of(value)


def truth_of(value: Scalar) -> bool | None:
    """A boolean, also when written as text ("False" is false)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().strip('"').lower())
    if isinstance(value, int):
        return bool(value)
    return None


def document_of(value: Scalar) -> Scalar:
    """Structured data: native, JSON text, twice-quoted JSON text, or the repr of a Python literal."""
    if not isinstance(value, str):
        return value
    if len(value) > DOCUMENT_LIMIT:
        return None
    parsed = _parsed(value)
    return _parsed(parsed) if isinstance(parsed, str) else parsed


def _parsed(text: str) -> Scalar:
    text = text.strip()
    if not text or text[0] not in '{["':
        return None
    try:
        return json.loads(text)  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        return _literal(text)


def _literal(text: str) -> Scalar:
    """A Python literal such as ``{'prompt_tokens': 12, 'cached': None}`` (LiteLLM)."""
    if len(text) > 16_384:  # literal_eval is slow and greedy; the documents we need are small
        return None
    try:
        return ast.literal_eval(text)  # type: ignore[no-any-return]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def mapping_of(value: Scalar) -> Mapping[str, Scalar]:
    """A document that is an object, else an empty one."""
    document = document_of(value)
    return document if isinstance(document, dict) else {}


def nano_of(value: Scalar, *, units_per_usd: int = 1) -> int | None:
    """A cost in USD (or in 1/units_per_usd USD) as integer nano-dollars, rounded half up; None if senseless.

    A float is read by its shortest decimal text, so 0.024191999999999998 does not gain false digits.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        usd = Decimal(str(value).strip()) / units_per_usd
    except (InvalidOperation, ValueError):
        return None
    if not usd.is_finite() or usd < 0 or usd > USD_LIMIT:
        return None
    return int((usd * 1_000_000_000 * 2 + 1) // 2)


#: Far above any duration in any unit, and far below what overflows when it is multiplied.
_LONGEST = 10**18


def micros_of(value: Scalar, *, per_second: int) -> int | None:
    """A duration given in 1/per_second seconds as whole microseconds; None if negative, huge or not a number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LONGEST:
        return None  # a NaN is in no range
    micros = round(value * 1_000_000 / per_second)
    return micros if 0 <= micros < 86_400_000_000 else None
