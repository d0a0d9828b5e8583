"""Numbers and moments as people read them. Money comes in as nano-dollars and is never a float."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from costapp.core.money import format_usd

GAP = "–"  #: nothing is known here; never a zero


def usd(nano: int | None, gap: str = GAP) -> str:
    """As ``format_usd``, with cents below a dollar always to four digits, so that columns line up."""
    if nano is None:
        return gap
    text = format_usd(nano)
    return text if not 10**7 <= abs(nano) < 10**9 else text.ljust(text.index(".") + 5, "0")


def exact_usd(nano: int | None) -> str:
    """To the last nano-dollar: what tooltips and exports show."""
    if nano is None:
        return ""
    sign, whole = ("-" if nano < 0 else ""), abs(nano)
    return f"{sign}{whole // 10**9}.{whole % 10**9:09d}"


def count(number: int | float | None) -> str:
    return GAP if number is None else f"{number:,.0f}"


def compact(number: int | float | None) -> str:
    """1,234 -> 1.23k. Three significant digits."""
    if number is None:
        return GAP
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit * 0.9995:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.3g}" if number != int(number) else f"{int(number)}"


def percent(share: float | None) -> str:
    """One digit where it matters; never rounds something to nothing, or nearly all to all."""
    if share is None:
        return GAP
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    text = f"{share * 100:.1f}"
    return f"{text.removesuffix('.0')}%"


def change(now: int | None, before: int | None) -> str:
    """Relative change in words of a table cell: +12%, -3%, new, gone."""
    if now is None or before is None:
        return GAP
    if not before:
        return "new" if now else GAP
    if not now:
        return "gone"
    share = (now - before) / before
    if abs(share) < 0.0005:
        return "±0%"
    digits = 0 if abs(share) >= 0.1 else 1
    return f"{share * 100:+,.{digits}f}%".replace("-", "−") if abs(share) < 100 else f"×{now / before:,.0f}"


def duration(us: float | None) -> str:
    if us is None:
        return GAP
    if us < 1000:
        return f"{us:.0f} µs"
    if us < 1_000_000:
        return f"{us / 1000:.0f} ms"
    if us < 60_000_000:
        return f"{us / 1_000_000:.2f} s"
    minutes, seconds = divmod(round(us / 1_000_000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    seconds = max(0, round((now - moment).total_seconds()))
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / size)} {unit} ago"
    return f"{round(seconds / 86400)} days ago"


def local(moment: datetime, zone: ZoneInfo, pattern: str = "%-d %b %Y, %H:%M") -> str:
    return moment.astimezone(zone).strftime(pattern)


def span_of_time(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """ "21 Oct – 20 Nov 2026" for whole days, with hours otherwise."""
    first, last = start.astimezone(zone), end.astimezone(zone)
    if not any((first.hour, first.minute, last.hour, last.minute)):
        last -= timedelta(days=1)
        if first.date() == last.date():
            return first.strftime("%a %-d %b %Y")
        return f"{first.strftime('%-d %b' if first.year == last.year else '%-d %b %Y')} – {last.strftime('%-d %b %Y')}"
    if first.date() == last.date():
        return f"{first.strftime('%-d %b %Y, %H:%M')} – {last.strftime('%H:%M')}"
    return f"{first.strftime('%-d %b, %H:%M')} – {last.strftime('%-d %b %Y, %H:%M')}"
