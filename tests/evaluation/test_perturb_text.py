"""Changes of text: what a reader would not mind, and negation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.evaluation.behaviour.perturb_tables import Change
from salver.evaluation.behaviour.perturb_text import TEXT_CHANGES, with_typos


def changed(name: str, text: str, seed: int = 0, **more) -> str:
    return TEXT_CHANGES[name](text, Change(0.2, **more), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("negation", "The film is good.", "The film is not good."),
        ("negation", "The film is not good.", "The film is good."),
        ("negation", "I don't like it", "I do like it"),
        ("negation", "I cannot see it", "I can see it"),
        ("negation", "Marvellous!", "Marvellous!"),
        ("contractions", "I don't know, it's late", "I do not know, it is late"),
        ("contractions", "It is late", "It's late"),
        ("punctuation", "Late again...", "Late again"),
        ("typos", "a b c", "a b c"),
        ("typos", "", ""),
        ("case", "12 34", "12 34"),
    ],
)
def test_what_becomes_of_a_text(name: str, text: str, expected: str) -> None:
    assert changed(name, text) == expected


def test_a_list_of_words_says_what_stands_for_what() -> None:
    words = {"good": ("fine",), "very good": ("superb",)}
    assert changed("synonyms", "Good, very good; goodness", words=words) == "Fine, superb; goodness"
    assert changed("synonyms", "nothing here", words={"": ("x",), "y": ()}) == "nothing here"


def test_a_name_becomes_another_of_its_list() -> None:
    words = {"cities": ("Paris", "Lima", "New York"), "people": ("Ann", "Bob")}
    found = {changed("names", "Ann left New York", seed, words=words) for seed in range(20)}
    assert found == {"Bob left Paris", "Bob left Lima"}


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60), seed=st.integers(0, 2**31), name=st.sampled_from(sorted(TEXT_CHANGES)))
def test_any_text_can_be_changed_and_one_seed_makes_one_change(text: str, seed: int, name: str) -> None:
    assert changed(name, text, seed) == changed(name, text, seed)


@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.text("abcdefgh", min_size=3, max_size=8), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_typos_touch_the_asked_share_of_words_with_one_slip_each(words: list[str], seed: int) -> None:
    found = with_typos(" ".join(words), 0.3, np.random.default_rng(seed)).split(" ")
    assert len(found) == len(words)
    touched = [(one, other) for one, other in zip(words, found, strict=True) if one != other]
    assert len(touched) <= max(1, round(0.3 * len(words)))
    assert all(abs(len(one) - len(other)) <= 1 for one, other in touched)


def test_case_always_changes_where_it_can() -> None:
    assert {changed("case", "Not bad", seed) for seed in range(30)} == {"NOT BAD", "not bad", "Not Bad"}


def test_whitespace_leaves_the_words() -> None:
    for seed in range(10):
        found = changed("whitespace", "not bad at all", seed)
        assert found != "not bad at all"
        assert found.split() == ["not", "bad", "at", "all"]
