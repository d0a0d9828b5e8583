"""docs/prices.md says what is true."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from costapp.core.pricing import ASSUMED_TOKENS, CHARS_PER_TOKEN, REFUSED_ERRORS, UNSEEN_TOKENS
from costapp.core.rates import MAX_RATE_NANO, RATE_METERS
from costapp.models import Project
from costapp.services.import_prices import import_csv
from costapp.services.price_csv import COLUMNS, MAX_ROWS

TEXT = (Path(__file__).resolve().parents[2] / "docs/prices.md").read_text()


@pytest.mark.django_db
def test_the_example_list_can_be_imported() -> None:
    (example,) = re.findall(r"```csv\n(.*?)```", TEXT, re.DOTALL)
    result = import_csv(Project.objects.create(slug="acme", name="Acme"), example)
    assert result.opened == 5
    assert "+ any provider/prod-chat: 0 % off openai/gpt-4o" in result.changes


@pytest.mark.parametrize("name", sorted({*COLUMNS, *RATE_METERS}))
def test_every_column_is_explained(name: str) -> None:
    assert re.search(rf"\b{name}\b", TEXT)


def test_limits_and_assumptions_are_the_real_ones() -> None:
    assert f"{MAX_ROWS:,} rows" in TEXT
    assert (MAX_RATE_NANO, "$100,000 per million tokens" in TEXT) == (10**14, True)
    assert (CHARS_PER_TOKEN, "two characters per token" in TEXT) == (2, True)
    assert f"{ASSUMED_TOKENS:,} tokens each" in TEXT
    assert f"at least {UNSEEN_TOKENS:,} tokens each" in TEXT


@pytest.mark.parametrize("error", sorted(REFUSED_ERRORS))
def test_every_error_that_is_free_is_named(error: str) -> None:
    assert error.replace("_", " ") in TEXT


@pytest.mark.parametrize("command", re.findall(r"manage\.py (\w+)", TEXT))
def test_every_command_exists(command: str) -> None:
    assert get_commands()[command] == "costapp"
