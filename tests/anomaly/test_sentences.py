"""The one sentence of an incident."""

from fractions import Fraction

import pytest

from anomaly.decompose import Usage, decompose
from anomaly.sentences import Concentration, sentence, times
from tests.anomaly.test_decompose import BASE, usage

NANO = 10**9


def told(after: Usage, driver: str = "", **kwargs) -> str:
    return sentence("Support-bot", 412 * NANO, "14:05", decompose({"m": BASE}, {"m": after}), driver=driver, **kwargs)


def test_the_sentence_of_the_brief():
    text = told(usage(100, 3100, 200), "prompt version v7", concentration=Concentration("gpt-5", Fraction(92, 100)))
    assert text == (
        "Support-bot costs $412.00 above expected since 14:05: "
        "prompt version v7 sends 3.1x more input tokens per call; 92 % of it on gpt-5."
    )


@pytest.mark.parametrize(
    ("after", "cause"),
    [
        (usage(250, 1000, 200), "it makes 2.5x more calls"),
        (usage(100, 1000, 1400), "it gets 7.0x more output tokens per call"),
        (usage(100, 1000, 200, scale=3), "it pays 3.0x the price per token"),
        (usage(100, 1000, 200, other_nano=NANO), "it has other charges than before"),
    ],
)
def test_each_part_has_its_words(after, cause):
    assert told(after) == f"Support-bot costs $412.00 above expected since 14:05: {cause}."


def test_a_cache_that_broke_tells_both_shares():
    parts = decompose({"m": usage(100, 1000, 200, read=820)}, {"m": usage(100, 1000, 200, read=30)})
    assert "it reads less from the cache: 3 % of the prompt, 82 % before" in sentence("Bot", NANO, "9:00", parts)


def test_moving_to_a_dearer_model_is_said():
    before = {"small": usage(150, 1000, 200), "large": usage(50, 1000, 200, scale=5)}
    after = {"small": usage(50, 1000, 200), "large": usage(150, 1000, 200, scale=5)}
    assert "model large moved to dearer models" in sentence(
        "Bot", NANO, "9:00", decompose(before, after), driver="model large"
    )


def test_what_cannot_be_compared_is_not_compared():
    assert told(BASE, "user u99", is_new=True).endswith(": user u99 was not seen before.")
    assert told(BASE) == "Support-bot costs $412.00 above expected since 14:05."
    assert sentence("Chat", -NANO, "9:00", None, driver="model m") == (
        "Chat costs $1.00 below expected since 9:00: driven by model m."
    )


def test_everything_alike_is_said_and_a_small_concentration_is_not():
    text = told(usage(250, 1000, 200), alike=True, concentration=Concentration("gpt-5", Fraction(2, 5)))
    assert text.endswith(": everything rose alike, makes 2.5x more calls.")


@pytest.mark.parametrize(
    ("factor", "text"),
    [(Fraction(31, 10), "3.1x"), (Fraction(1249, 100), "12x"), (Fraction(1, 4), "0.25x"), (Fraction(1, 100), "0.01x")],
)
def test_factors_read_well(factor, text):
    assert times(factor) == text
