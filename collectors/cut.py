"""A span in protobuf, cut at known places: its ids and times on one side, the bytes of all the rest on the other.

Nearly every SDK writes the fields of a span in the order of their numbers and nothing between them.
"""

from struct import Struct

# Tags and lengths of trace_id, span_id and parent_span_id with their values, then tag and length of the name.
_IDS = Struct(">H16sHqHqBB")
_TRACE_ID, _SPAN_ID, _PARENT_ID, _NAME = 0x0A10, 0x1208, 0x2208, 0x2A
_NAME_TAG_AT = _IDS.size - 2
_TIMES = Struct("<BQBQ")
_KIND, _START, _END = 0x30, 0x39, 0x41

#: Trace id, span id, parent id, start and end (ns), and the bytes of all the rest
Cut = tuple[bytes, int, int, int, int, bytes]


def cut(raw: bytes) -> Cut | None:
    """An encoded Span, cut into what differs and what repeats; None if it is a root or not in the usual order."""
    size = len(raw)
    if size < _IDS.size:
        return None
    tag, trace_id, span_tag, span_id, parent_tag, parent_id, name_tag, name_size = _IDS.unpack_from(raw)
    if tag != _TRACE_ID or span_tag != _SPAN_ID or parent_tag != _PARENT_ID or name_tag != _NAME:
        return None
    at = _IDS.size + name_size
    if name_size > 127 or at + 2 + _TIMES.size > size:
        return None
    if raw[at] == _KIND:
        at += 2
    start_tag, start_ns, end_tag, end_ns = _TIMES.unpack_from(raw, at)
    if start_tag != _START or end_tag != _END:
        return None
    return trace_id, span_id, parent_id, start_ns, end_ns, raw[_NAME_TAG_AT:at] + raw[at + _TIMES.size :]
