"""The budget form of the admin: dollars, percent and names as people write them, kept as the model has them."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from costapp.admin_scope import OneProjectForm
from costapp.core.budgets import BUDGET_DIMENSIONS, Basis, Threshold
from costapp.core.money import format_nano, parse_usd
from costapp.models import Budget
from costapp.models.budget import default_thresholds


class DollarsField(forms.CharField):
    """``1,250.50`` or ``$500`` as integer nano-dollars."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return None
        try:
            return parse_usd(text)
        except ValueError as problem:
            raise ValidationError(f"{problem} Amounts are US dollars, such as 500 or 1,250.50.") from None

    def prepare_value(self, value: Any) -> Any:
        return format_nano(value).removeprefix("$") if isinstance(value, int) else value


class NamesField(forms.CharField):
    """One name per line, as a list without repeats."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 50})

    def to_python(self, value: Any) -> Any:
        lines = [line.strip() for line in str(super().to_python(value)).splitlines()]
        return list(dict.fromkeys(line for line in lines if line))

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value


class FiltersField(forms.CharField):
    """``environment = production`` per line, as an object of lists."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 50})

    def __init__(self, *, known: Mapping[str, str] = BUDGET_DIMENSIONS, **kwargs: Any) -> None:
        """``known``: the words of each dimension, by its key."""
        super().__init__(**kwargs)
        self.known = known

    def to_python(self, value: Any) -> Any:
        found: dict[str, list[str]] = {}
        for line in str(super().to_python(value)).splitlines():
            if not line.strip():
                continue
            name, equals, text = (part.strip() for part in line.partition("="))
            key = name.lower().replace(" ", "_")
            if not equals or not text:
                raise ValidationError(
                    f"“{line.strip()}” is no filter. Write one per line, like environment = production."
                )
            if key not in self.known:
                known = ", ".join(self.known.values())
                raise ValidationError(f"There is no dimension “{name}”. Use one of: {known}.")
            found.setdefault(key, [])
            found[key] += [text] if text not in found[key] else []
        return found

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return "\n".join(f"{self.known.get(key, key)} = {text}" for key in value for text in value[key])


class ThresholdsField(forms.CharField):
    """``50 %, 80 %, 100 %, forecast 100 %`` as pairs of basis and percent."""

    widget = forms.TextInput(attrs={"class": "vTextField"})

    def to_python(self, value: Any) -> Any:
        found = []
        for part in str(super().to_python(value)).replace(";", ",").split(","):
            words = part.strip().lower().removesuffix("%").split()
            if not words:
                continue
            basis = Basis.ACTUAL
            if words[0] in set(Basis):
                basis = Basis(words.pop(0))
            if len(words) != 1 or not words[0].isdecimal() or len(words[0]) > 4:
                raise ValidationError(
                    f"“{part.strip()}” is no threshold. Write whole percentages, like 80 % or forecast 100 %."
                )
            found.append([basis.value, int(words[0])])
        return found

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        pairs = sorted(Threshold(Basis(basis), percent) for basis, percent in value)
        return ", ".join(f"{'forecast ' if t.basis is Basis.FORECAST else ''}{t.percent} %" for t in pairs)


class BudgetForm(OneProjectForm):
    amount_nano = DollarsField(
        label="Amount in US dollars", help_text="Per period, for example 500 or 1,250.50. "
        "A change counts from now on, within the current period too.",
    )  # fmt: skip
    values = NamesField(
        label="Which ones", required=False, help_text="One name per line; together they have the amount. "
        "None: each one has the amount, unless it has a budget of its own for the same period.",
    )  # fmt: skip
    filters = FiltersField(
        label="Only where", required=False, help_text="One per line, for example environment = production. "
        "Several lines about one dimension mean any of them.",
    )  # fmt: skip
    thresholds = ThresholdsField(
        label="Tell at", required=False, initial=default_thresholds,
        help_text="Shares of the limit, for example 50 %, 80 %, 100 %, forecast 100 %. Each is told once per period. "
        "None: the pages show the budget, nobody is told.",
    )  # fmt: skip

    class Meta:
        model = Budget
        fields = (
            "project", "name", "enabled", "dimension", "values", "filters", "amount_nano", "period", "rolling_days",
            "carry_over", "starts_on", "ends_on", "thresholds", "channels", "blocks", "owner", "note",
        )  # fmt: skip
