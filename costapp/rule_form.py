"""The form of an alert rule, on its page and in the admin. What cannot work is refused in sentences."""

from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from costapp.core.alert_metrics import METRICS, WINDOWS
from costapp.core.alert_rules import Condition, threshold_unit
from costapp.models import AlertRule, Project
from costapp.storage.reports.cells import Unanswerable
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.rule_readings import SUBJECTS, require_readable

FILTER_ROWS = 2
THRESHOLDS = ("warning", "critical", "clear")


def subjects() -> list[tuple[str, str]]:
    return [("", "Nothing: the whole project"), *((key, f"Each {subject.label}") for key, subject in SUBJECTS.items())]


class RuleChecks(forms.ModelForm):
    """The rules that concern several fields. Used by every form of a rule."""

    by = forms.ChoiceField(label="For each", choices=subjects, required=False)

    class Meta:
        model = AlertRule
        labels = {
            "clear": "Over again at",
            "minimum_requests": "At least so many requests",
            "lasting_minutes": "Lasting for, minutes",
            "calm_readings": "Calm windows in a row",
            "remind_minutes": "Remind every, minutes",
            "note": "What to do about it",
        }
        help_texts = {"note": "Part of every message.", "metric": "What is watched."}
        fields = (
            "name", "metric", "by", "window", "condition", "warning", "critical", "clear", "minimum_requests",
            "lasting_minutes", "calm_readings", "no_data", "remind_minutes", "channels", "note", "enabled",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in THRESHOLDS:
            if isinstance(amount := self.initial.get(name), Decimal):
                self.initial[name] = _plain(amount)

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or self.cleaned_data
        if found.get("metric") == "silence":
            found["window"] = "1h"  # it is looked at every five minutes, whatever the window
            if found.get("condition") != Condition.ABOVE.value:
                self.add_error("condition", "Time since the last call can only be above a number of minutes.")
        if all(found.get(name) for name in ("metric", "window", "condition")):
            self._check_thresholds(found)
            self._check_question(found)
        return found

    def _check_thresholds(self, found: dict[str, Any]) -> None:
        if any(name in self.errors for name in THRESHOLDS):
            return
        warning, critical, clear = (found.get(name) for name in THRESHOLDS)
        if warning is None and critical is None:
            self.add_error("warning", "Enter a warning or a critical threshold, or both.")
            return
        condition = Condition(found["condition"])
        sign = -1 if condition is Condition.BELOW else 1
        way = "below" if condition is Condition.BELOW else "above"
        if warning is not None and critical is not None and sign * critical <= sign * warning:
            self.add_error("critical", f"Critical must be {way} the warning of {_plain(warning)}.")
        lowest = warning if warning is not None else critical
        if clear is not None and lowest is not None and sign * clear > sign * lowest:
            side = "above" if condition is Condition.BELOW else "below"
            self.add_error("clear", f"An alert can only be over {side} the threshold of {_plain(lowest)}, or at it.")

    def _check_question(self, found: dict[str, Any]) -> None:
        filters = self.filters_of(found)
        unknown = sorted(set(filters) - set(DIMENSIONS))
        if unknown:
            self.add_error(None, f"{unknown[0]!r} is not a dimension. Choose from: {', '.join(DIMENSIONS)}.")
            return
        try:
            require_readable(METRICS[found["metric"]], WINDOWS[found["window"]], found.get("by") or "", list(filters))
        except Unanswerable as problem:
            self.add_error(None, str(problem))

    def filters_of(self, found: dict[str, Any]) -> dict[str, list[str]]:
        given: dict[str, list[str]] = found.get("filters") or {}
        return given


def _plain(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class RuleForm(RuleChecks):
    """The form of the page: filters as rows of a dimension and a value."""

    def __init__(self, project: Project, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        self.instance.project = project
        self.fields["channels"].queryset = project.channels.all()
        self.fields["channels"].widget = forms.CheckboxSelectMultiple(choices=self.fields["channels"].choices)
        pairs = [(key, value) for key, values in (self.instance.filters or {}).items() for value in values]
        self.rows = max(FILTER_ROWS, len(pairs))
        for number in range(self.rows):
            key, value = pairs[number] if number < len(pairs) else ("", "")
            choices = [("", "No filter"), *((d.key, d.label) for d in DIMENSIONS.values())]
            self.fields[f"where_{number}"] = forms.ChoiceField(
                label="Only where", choices=choices, required=False, initial=key
            )
            self.fields[f"is_{number}"] = forms.CharField(
                label="is", max_length=512, required=False, initial=value, strip=False
            )
        for name in THRESHOLDS:
            self.fields[name].widget.attrs["step"] = "any"

    @property
    def filter_rows(self) -> list[tuple[Any, Any]]:
        return [(self[f"where_{number}"], self[f"is_{number}"]) for number in range(self.rows)]

    def filters_of(self, found: dict[str, Any]) -> dict[str, list[str]]:
        filters: dict[str, list[str]] = {}
        for number in range(self.rows):
            if key := found.get(f"where_{number}"):
                filters.setdefault(key, []).append(found.get(f"is_{number}", "").replace("\x00", ""))
        return filters

    def _post_clean(self) -> None:
        self.instance.filters = self.filters_of(self.cleaned_data)
        super()._post_clean()

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"]).replace("\x00", "")
        if self.project.alert_rules.filter(name=name).exclude(pk=self.instance.pk).exists():
            raise ValidationError("This project has a rule of that name already.")
        return name

    @property
    def has_fine_tuning(self) -> bool:
        """Whether the folded part of the form holds anything that is not its default, or is wrong."""
        defaults = {"lasting_minutes": "0", "calm_readings": "1", "no_data": "ok", "clear": "", "remind_minutes": ""}
        changed = any(str(self[name].value() or "0") not in (usual, usual or "0") for name, usual in defaults.items())
        filtered = any(where.value() for where, _ in self.filter_rows)
        return changed or filtered or any(name in self.errors for name in defaults)

    @property
    def unit_sign(self) -> str:
        """In what the thresholds of the chosen metric and condition are written."""
        metric, condition = self["metric"].value(), self["condition"].value()
        if metric not in METRICS or condition not in {each.value for each in Condition}:
            return ""
        return threshold_unit(METRICS[metric], Condition(condition)).sign.replace("× the usual spread", "usual spreads")
