"""Addresses that carry a page's state on: the one place that knows how pages hang together."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

from django.urls import reverse

from costapp.web.access import Visit
from costapp.web.filters import View

Pairs = Iterable[tuple[str, str]]


def drill_url(visit: Visit, view: View, dimension: str, value: str, fixed: Pairs = ()) -> str:
    """The page of one value, in the same period; what is fixed or filtered here becomes a filter there."""
    kept = [pair for pair in (*fixed, *view.pairs(drop=("by", "sort"))) if pair[0] != dimension]
    name = "session" if dimension == "session" else "drill"
    kwargs = {"slug": visit.project.slug} | ({} if dimension == "session" else {"dimension": dimension})
    return f"{reverse(name, kwargs=kwargs)}?{urlencode([('is', value), *kept])}"


def calls_link(visit: Visit, view: View, fixed: Pairs, changes: Mapping[str, str]) -> str:
    """The list of calls in the page's period and filters; an empty change removes a key."""
    kept = [pair for pair in (*fixed, *view.pairs(drop=("by", "sort", "compare", "gpu"))) if pair[0] not in changes]
    pairs = [*kept, *((key, value) for key, value in changes.items() if value)]
    return f"{reverse('calls', kwargs={'slug': visit.project.slug})}?{urlencode(pairs)}"
