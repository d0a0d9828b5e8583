"""What a rule does, and what an alert says, as sentences for people. Pure; figures come in base units."""

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from costapp.core.alert_metrics import Metric, Window, amount_text
from costapp.core.alert_rules import Condition, NoData, Reading, Severity, threshold_unit
from costapp.core.alerts import Fact


class Wording(NamedTuple):
    """A rule in the words of its form. Thresholds as typed, in base units of ``threshold_unit``."""

    metric: Metric
    condition: Condition
    window: Window
    by: str  #: "feature"; "" = the whole project
    filters: Mapping[str, tuple[str, ...]]  #: {"environment": ("production",)}
    warning: int | None
    critical: int | None
    clear: int
    minimum_requests: int
    no_data: NoData
    lasting: timedelta
    calm_readings: int
    remind_every: timedelta | None

    def amount(self, threshold: int | None) -> str:
        unit = threshold_unit(self.metric, self.condition)
        return amount_text(threshold, unit).replace(" × the usual spread", " times the usual spread")


_IS = {
    Condition.ABOVE: "is above {}",
    Condition.BELOW: "is below {}",
    Condition.RISES: "has risen by more than {} against the period before",
    Condition.FALLS: "has fallen by more than {} against the period before",
    Condition.OUTSIDE: "is more than {} away from what is usual at this hour of the week",
    Condition.OVER_BAND: "is more than {} above what is usual at this hour of the week",
}
_NO_DATA = {
    NoData.OK: "",
    NoData.ALERT: "If nothing arrives, that is an alert too.",
    NoData.KEEP: "While nothing arrives, the state stays as it was.",
}


def rule_sentence(rule: Wording) -> str:
    """All that a rule does, in two or three sentences."""
    parts = [f"{_verb(rule)} when {_what(rule)} {_is(rule)}{_with(rule)}.", _end(rule), _NO_DATA[rule.no_data]]
    if rule.remind_every:
        parts.append(f"While it lasts, a reminder every {span_text(rule.remind_every).removeprefix('1 ')}.")
    return " ".join(part for part in parts if part)


def _verb(rule: Wording) -> str:
    return "Warn" if rule.warning is not None else "Alert as critical"


def _what(rule: Wording) -> str:
    of = f" of any {rule.by}" if rule.by else ""
    where = "".join(f" where {label} is {' or '.join(values)}" for label, values in sorted(rule.filters.items()))
    return f"{rule.metric.label}{of}{where}{_over(rule)}"


def _over(rule: Wording) -> str:
    return "" if rule.metric.key == "silence" else f" within {rule.window.words}"


def _is(rule: Wording) -> str:
    lowest = rule.warning if rule.warning is not None else rule.critical
    said = _IS[rule.condition].format(rule.amount(lowest))
    if rule.warning is not None and rule.critical is not None:
        way = "below" if rule.condition is Condition.BELOW else "above"
        said += f", and as critical {way} {rule.amount(rule.critical)}"
    return said


def _with(rule: Wording) -> str:
    said = f", with at least {rule.minimum_requests:,} {rule.metric.counted}" if rule.minimum_requests else ""
    return said + (f", for {span_text(rule.lasting)} or longer" if rule.lasting else "")


def _end(rule: Wording) -> str:
    way = "at or above" if rule.condition is Condition.BELOW else "at or below"
    count = "twice" if rule.calm_readings == 2 else f"{rule.calm_readings} times"
    times = f" {count} in a row" if rule.calm_readings > 1 else ""
    return f"It is over when it is {way} {rule.amount(rule.clear)}{times}."


def span_text(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    for size, word in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes % size == 0 or size == 1:
            number = minutes // size
            return f"{number} {word}{'s' if number != 1 else ''}"
    return ""


def reading_sentence(rule: Wording, subject: str, reading: Reading) -> str:
    """What is the case, figures included; ``subject`` is a name for people, "" for the whole project."""
    of = f" of {subject}" if subject else ""
    label = _capital(rule.metric.label)
    if _says_nothing(rule, reading):
        return f"{subject or 'The project'} had {_count(rule, reading.requests)} within {rule.window.words}" + (
            "" if not reading.requests else f", and its {rule.metric.label} is unknown"
        )
    value = amount_text(reading.value, rule.metric.unit)
    if rule.condition.compares_periods and reading.before and reading.value is not None:
        change = (reading.value - reading.before) * 100 // reading.before
        before = amount_text(reading.before, rule.metric.unit)
        return f"{label}{of} is {value}{_over(rule)}, {change:+d}% against {before} in the period before"
    said = f"{label}{of} is {value}{_over(rule)}"
    if rule.condition.needs_band and reading.band:
        return f"{said}; usual at this hour of the week is {_band(rule, reading)}"
    return said


def _says_nothing(rule: Wording, reading: Reading) -> bool:
    """Without any request a cost of 0 is no figure where the rule has its own answer to silence."""
    return reading.value is None or (reading.requests == 0 and rule.no_data is not NoData.OK)


def alert_title(rule: Wording, subject: str, reading: Reading, severity: Severity) -> str:
    said = reading_sentence(rule, subject, reading)
    if _says_nothing(rule, reading) or rule.condition.needs_band:
        return f"{said}."
    limit = rule.critical if severity is Severity.CRITICAL else rule.warning
    way = "below" if rule.condition is Condition.BELOW else "above"
    return f"{said}, {way} {rule.amount(limit)}."


def over_title(rule: Wording, subject: str, reading: Reading) -> str:
    return f"Resolved. {reading_sentence(rule, subject, reading)}."


def facts(rule: Wording, name: str, reading: Reading, severity: Severity) -> tuple[Fact, ...]:
    """The figures of a message."""
    limit = rule.critical if severity is Severity.CRITICAL else rule.warning
    found = [Fact(_capital(rule.metric.label), amount_text(reading.value, rule.metric.unit))]
    found.append(Fact("Limit", f"{'less' if rule.condition is Condition.BELOW else 'more'} than {rule.amount(limit)}"))
    if rule.condition.compares_periods:
        found.append(Fact("Period before", amount_text(reading.before, rule.metric.unit)))
    if rule.condition.needs_band and reading.band:
        found.append(Fact("Usual at this hour", _band(rule, reading)))
    found += [
        Fact("Window", rule.window.words),
        Fact(_capital(rule.metric.counted), f"{reading.requests:,}"),
        Fact("Rule", name),
    ]
    return tuple(found)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _band(rule: Wording, reading: Reading) -> str:
    assert reading.band is not None
    centre, spread = reading.band
    return f"{amount_text(centre, rule.metric.unit)} ± {amount_text(spread, rule.metric.unit)}"


def _count(rule: Wording, number: int) -> str:
    counted = rule.metric.counted
    return f"{number:,} {counted if number != 1 else counted.removesuffix('s')}" if number else f"no {counted}"
