"""Prices get into dated tables: once, never edited, and back to the same row when a correction is undone."""

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from genai_prices import types as genai
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.values import ChargeFlag, CostStatus, Usage
from costapp.models import PriceList, Project, RateSet
from costapp.models.pricing import validate_rates
from costapp.services.genai_catalogue import clause_json, read_package
from costapp.services.import_prices import ImportResult, catalogue_is_current, import_catalogue, import_csv
from costapp.services.price_csv import COLUMNS, PriceListError, parse_price_csv
from costapp.storage.rates import catalogue_age, load_rate_book, rate_set, rates_version
from tests.prices.factories import a_call

pytestmark = pytest.mark.django_db


def raw() -> Any:
    connection.ensure_connection()
    return connection.connection


def price(dollars: str, output: str = "10") -> genai.ModelPrice:
    return genai.ModelPrice(input_mtok=Decimal(dollars), output_mtok=Decimal(output))


def provider(*models: genai.ModelInfo) -> genai.Provider:
    return genai.Provider("openai", "OpenAI", r"https://api\.openai\.com", models=list(models))


def model(prices: Any, name: str = "gpt-4o", variants: Any = None) -> genai.ModelInfo:
    return genai.ModelInfo(name, genai.ClauseStartsWith(name), prices=prices, price_variants=variants)


def load(*models: genai.ModelInfo, version: str = "1.0") -> ImportResult:
    return import_catalogue(read_package([provider(*models)], package=version))


def dated(*prices: tuple[date | None, str]) -> list[genai.ConditionalPrice]:
    return [
        genai.ConditionalPrice(day and genai.StartDateConstraint(day), prices=price(dollars)) for day, dollars in prices
    ]


def booked(model_name: str = "gpt-4o", **stated: Any) -> Any:
    return load_rate_book(raw(), 0).price(a_call(model_name, **stated))


def test_importing_the_installed_package_twice_changes_nothing() -> None:
    first = import_catalogue()
    assert first.opened > 2500
    before = list(RateSet.objects.order_by("id").values()), rates_version(raw()), PriceList.objects.get().imported_at
    again = import_catalogue()
    assert not again.changed
    assert again.unchanged == first.opened
    assert "nothing new" in again.sentence()
    after = list(RateSet.objects.order_by("id").values()), rates_version(raw()), PriceList.objects.get().imported_at
    assert before == after


def test_a_newer_package_is_noticed() -> None:
    assert not catalogue_is_current()
    load(model(price("2.5")), version="0.0.1")
    assert not catalogue_is_current()
    import_catalogue()
    assert catalogue_is_current()


def test_a_new_dated_price_closes_the_old_rate_and_opens_a_new_one() -> None:
    load(model(price("2.5")))
    old = RateSet.objects.get()
    result = load(model(dated((None, "2.5"), (date(2026, 6, 1), "2"))), version="1.1")
    assert (result.opened, result.closed, result.superseded) == (1, 1, 0)
    first, second = RateSet.objects.order_by("id")
    change = datetime(2026, 6, 1, tzinfo=UTC)
    assert (first.id, first.rates, first.valid_to) == (old.id, old.rates, change)
    assert (second.valid_from, second.valid_to, second.source) == (change, None, "genai-prices 1.1")
    assert booked(at=datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC)).rate_id == first.id
    assert booked(at=change).rate_id == second.id


def test_a_corrected_price_supersedes_the_wrong_one_and_undoing_it_brings_back_the_same_row() -> None:
    load(model(price("2.5")))
    original = booked()
    corrected = load(model(price("3")), version="1.1")
    assert (corrected.opened, corrected.superseded) == (1, 1)
    wrong = RateSet.objects.get(superseded_at__isnull=False)
    assert (wrong.id, wrong.rates["input"]["nano"]) == (original.rate_id, 2_500_000_000)
    assert "corrected in genai-prices 1.1" in wrong.superseded_reason
    assert booked().cost_nano == 4_000_000
    assert rate_set(raw(), wrong.id) is not None
    undone = load(model(price("2.5")), version="1.2")
    assert (undone.opened, undone.restored, undone.superseded) == (0, 1, 1)
    assert booked() == original


def test_a_model_that_the_package_drops_keeps_its_price_and_is_still_recognised() -> None:
    load(model(price("2.5")), model(price("1"), "gpt-3"))
    result = load(model(price("2.5")), version="1.1")
    assert not result.changed
    assert booked("gpt-3").cost_nano == 2_000_000
    age = catalogue_age(raw())
    assert age is not None
    assert (age.version, age.rate_sets) == ("1.1", 2)


def test_a_batch_price_holds_from_its_date_and_only_for_batches() -> None:
    start = genai.StartDateConstraint(date(2026, 6, 1))
    variant = genai.PriceVariant({"processing": "batch"}, genai.ModelPrice(input_mtok=Decimal("1.25")), start)
    load(model(price("2.5"), variants=[variant]))
    usage, batch = Usage(input=1000), int(ChargeFlag.BATCH)
    assert booked(usage=usage, flags=batch).cost_nano == 1_250_000
    assert booked(usage=usage).cost_nano == 2_500_000
    early = booked(usage=usage, flags=batch, at=datetime(2026, 5, 1, tzinfo=UTC))
    assert (early.cost_nano, early.status) == (2_500_000, CostStatus.ESTIMATED)


def test_match_clauses_survive_as_json() -> None:
    clause = genai.ClauseOr(
        [genai.ClauseEquals("a"), genai.ClauseAnd([genai.ClauseRegex("b"), genai.ClauseContains("c")])]
    )
    assert clause_json(clause) == {"or": [{"equals": "a"}, {"and": [{"regex": "b"}, {"contains": "c"}]}]}


def test_the_rates_version_moves_with_every_change_of_price_list_or_policy() -> None:
    versions = [rates_version(raw())]

    def moved() -> bool:
        versions.append(rates_version(raw()))
        return versions[-1] not in versions[:-1]

    load(model(price("2.5")))
    assert moved()
    load(model(dated((None, "2.5"), (date(2026, 6, 1), "2"))))
    assert moved()
    project = Project.objects.create(slug="acme", name="Acme", reported_cost_counts=True)
    assert moved()
    import_csv(project, "model,input\nacme-1,2\n")
    assert moved()
    RateSet.objects.filter(model="acme-1").delete()
    assert moved()


# -- own lists ----------------------------------------------------------------------------------------

OWN = """provider,model,input,output,cache_read,valid_from,context_above
openai,gpt-4o,2.00,8.00,1.00,2026-01-01,
openai,gpt-4o,1.50,6.00,,2026-07-01,
,acme-1,0.10,0.20,,,
,acme-1,0.20,0.40,,,100000
"""


@pytest.fixture
def acme() -> Project:
    return Project.objects.create(slug="acme", name="Acme")


def own_book(project: Project) -> Any:
    return load_rate_book(raw(), project.pk)


def test_an_own_list_is_priced_by_date_and_context_and_only_in_its_project(acme: Project) -> None:
    result = import_csv(acme, OWN, source="acme.csv")
    assert result.opened == 3
    book = own_book(acme)
    spring, autumn = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC)
    usage = Usage(input=1_000_000)
    assert book.price(a_call(at=spring, usage=usage)).cost_nano == 2_000_000_000
    assert book.price(a_call(at=autumn, usage=usage)).cost_nano == 1_500_000_000
    assert book.price(a_call("acme-1", "", usage=Usage(input=100_000))).cost_nano == 10_000_000
    assert book.price(a_call("acme-1", "", usage=Usage(input=100_001))).cost_nano == 20_000_200
    other = Project.objects.create(slug="other", name="Other")
    assert own_book(other).price(a_call("acme-1", "")).cost_nano is None


def test_importing_a_list_again_changes_nothing_and_a_dry_run_writes_nothing(acme: Project) -> None:
    assert import_csv(acme, OWN, dry_run=True).opened == 3
    assert not RateSet.objects.exists()
    import_csv(acme, OWN)
    assert not import_csv(acme, OWN).changed


def test_a_changed_list_says_what_changed_and_keeps_what_was(acme: Project) -> None:
    import_csv(acme, OWN, source="acme.csv")
    result = import_csv(acme, OWN.replace("0.10,0.20", "0.15,0.20"), source="acme.csv")
    assert result.changes == [
        "+ any provider/acme-1: input $0.15+, output $0.20+",
        "- any provider/acme-1: input $0.10+, output $0.20+ (superseded)",
    ]
    assert RateSet.objects.count() == 4


def test_another_currency_is_converted_at_the_rate_in_the_list(acme: Project) -> None:
    import_csv(acme, "model,input,output,currency,usd_per_unit\nacme-1,2.00,1.10,EUR,1.0837\n")
    row = RateSet.objects.get()
    assert row.rates == {"input": {"nano": 2_167_400_000}, "output": {"nano": 1_192_070_000}}
    assert (row.currency, row.usd_per_unit, row.stated) == (
        "EUR",
        Decimal("1.0837"),
        {"0": {"input": "2.00", "output": "1.10"}},
    )


def test_prices_per_request_and_per_unit_are_per_one(acme: Project) -> None:
    import_csv(acme, "model,request,images\nacme-draw,0.01,0.04\n")
    call = a_call("acme-draw", "", usage=Usage(units=2), unit="images")
    assert own_book(acme).price(call).cost_nano == 10_000_000 + 80_000_000


def test_a_negotiated_discount_comes_off_the_catalogue(acme: Project) -> None:
    load(model(price("2.5")))
    import_csv(acme, "provider,model,discount_percent,valid_from\nopenai,*,12.5,2026-01-01\n")
    assert own_book(acme).price(a_call()).cost_nano == 3_062_500
    assert own_book(acme).price(a_call(at=datetime(2025, 12, 31, tzinfo=UTC))).cost_nano == 3_500_000


def test_a_deployment_name_is_priced_as_a_catalogue_model(acme: Project) -> None:
    load(model(price("2.5")))
    import_csv(acme, "model,discount_percent,priced_as\nprod-chat,0,openai/gpt-4o\n")
    assert own_book(acme).price(a_call("prod-chat", "azure")).cost_nano == 3_500_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Line 1: the column model is missing."),
        ("model,input\n", "The file has no price in it."),
        ("model,inptu\nx,1\n", "Line 1: there is no column 'inptu'."),
        ("model,input,input\nx,1,1\n", "Line 1: the column input is there twice."),
        ("model,input\n,1\n", "Line 2: model is empty."),
        ("model,input\nx,\n", "Line 2: there is neither a price nor a discount_percent."),
        ("model,input\nx,two\n", "Line 2: input is 'two'; write a price like 2.50."),
        ("model,input\nx,-1\n", "Line 2: input is '-1'; a price is 0 or more."),
        ("model,input\nx,1e99\n", "Line 2: input is '1e99'; that is too much to be a price."),
        ("model,input\nx,NaN\n", "Line 2: input is 'NaN'; write a price like 2.50."),
        ("model,input,valid_from\nx,1,2026-13-01\n", "Line 2: valid_from is '2026-13-01'; write a date"),
        ("model,input,valid_from,valid_to\nx,1,2026-02-01,2026-01-01\n", "Line 2: valid_to must be later"),
        ("model,input,currency\nx,1,EUR\n", "Line 2: prices in EUR need usd_per_unit"),
        ("model,input,usd_per_unit\nx,1,1.1\n", "Line 2: usd_per_unit is only for prices in another currency."),
        ("model,input,batch\nx,1,maybe\n", "Line 2: batch is 'maybe'; write yes or no."),
        ("model,input,window_start\nx,1,08:00\n", "Line 2: a time-of-day window needs both"),
        ("model,input,window_start,window_end\nx,1,8 am,9\n", "Line 2: window_start is '8 am'; write a time of day"),
        ("model,discount_percent\nx,101\n", "Line 2: discount_percent is '101'; a discount is between 0 and 100"),
        ("model,input,discount_percent\nx,1,5\n", "Line 2: a row has either prices or a discount_percent, not both."),
        ("model,input,priced_as\nx,1,openai/gpt-4o\n", "Line 2: priced_as needs a discount_percent"),
        ("model,discount_percent,priced_as\nx,0,gpt-4o\n", "Line 2: priced_as is 'gpt-4o'; write it like"),
        ("model,input\nx,1\nx,2\n", "Line 3: the same prices as on line 2 are stated again."),
        ("model,input,context_above\nx,1,100\n", "Line 2: there is no row for prompts up to 100 tokens."),
        ("model,input,output,context_above\nx,1,,\nx,1,2,100\n", "Line 3: output has no price for shorter prompts."),
        ("model,input\nx,1,2\n", "Line 2: there are more values than columns."),
        ('model,input\n"x,1\n', "this is not CSV"),
        ("model,input\nx\0y,1\n", "characters that cannot be shown"),
        ("model,input\n" + "x" * 300 + ",1\n", "Line 2: model is too long"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_list_is_said_in_a_sentence_and_nothing_is_imported(
    acme: Project, text: str, sentence: str
) -> None:
    with pytest.raises(PriceListError) as refused:
        import_csv(acme, text)
    assert sentence in str(refused.value)
    assert not RateSet.objects.exists()


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(PriceListError) as refused:
        parse_price_csv("model,input,batch\nx,two,no\ny,1,perhaps\n,1,no\n")
    assert len(refused.value.problems) == 3


cells = st.one_of(
    st.sampled_from(["", "1", "2.50", "0", "-1", "yes", "no", "EUR", "1.1", "2026-01-01", "2026-06-01", "16:30", "*"]),
    st.text(max_size=8),
)


@given(
    st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=12, unique=True),
    st.lists(st.lists(cells, max_size=12), max_size=4),
)
def test_any_file_is_either_read_or_refused_in_sentences(header: list[str], rows: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([header, *rows])
    try:
        parsed = parse_price_csv(file.getvalue())
    except PriceListError as refused:
        parsed = []
        problems = refused.problems
    else:
        problems = []
    assert bool(parsed) != bool(problems)
    for row in parsed:
        validate_rates(row.rates)
        assert row.rates or row.discount_percent is not None


def test_a_list_needs_a_usable_name(acme: Project) -> None:
    with pytest.raises(PriceListError, match="1 to 100 characters"):
        import_csv(acme, OWN, name="x" * 101)


# -- the command --------------------------------------------------------------------------------------


def test_the_command_imports_a_file_and_says_what_is_next(acme: Project, tmp_path: Any, capsys: Any) -> None:
    path = tmp_path / "acme.csv"
    path.write_text(OWN)
    call_command("import_prices", csv=str(path), project="acme", dry_run=True)
    assert "Nothing was written" in capsys.readouterr().out
    call_command("import_prices", csv=str(path), project="acme")
    out = capsys.readouterr().out
    assert "+ openai/gpt-4o, from 2026-01-01, until before 2026-07-01: cache_read $1.00, input $2.00" in out
    assert "own prices: 3 rates opened" in out
    assert "manage.py reprice" in out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"csv": "x.csv"}, "--csv needs --project SLUG. Projects: acme."),
        ({"csv": "/nowhere/x.csv", "project": "acme"}, "cannot be read: No such file or directory."),
        ({"dry_run": True}, "--project and --dry-run belong to --csv FILE."),
    ],
)
def test_the_command_refuses_in_a_sentence(acme: Project, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        call_command("import_prices", **options)


def test_a_file_that_is_not_text_is_refused(acme: Project, tmp_path: Any) -> None:
    path = tmp_path / "acme.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="not UTF-8"):
        call_command("import_prices", csv=str(path), project="acme")
