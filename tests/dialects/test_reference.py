"""docs/attributes.md names every attribute that is recognised, and no other."""

from pathlib import Path

from collectors.dialects import attribution, content
from collectors.dialects.recogniser import BUILT_IN
from collectors.dialects.reference import lines

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "attributes.md").read_text()


def test_the_reference_page_equals_the_tables() -> None:
    assert PAGE.endswith("\n".join(lines())), "Run: python -m collectors.dialects.reference, and update the page."


def test_every_recognised_name_is_on_the_page() -> None:
    names = {*BUILT_IN, *content.PROMPTS, *content.ANSWERS, *content.OTHERS, *attribution.WORDS}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()


def test_the_documented_limits_are_the_real_ones() -> None:
    from collectors.dialects import scalars

    assert f"cut to {scalars.TEXT_LIMIT} characters, span names to {scalars.NAME_LIMIT}" in PAGE
    assert f"0 to {scalars.COUNT_LIMIT:,}" in PAGE
