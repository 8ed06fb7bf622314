from __future__ import annotations

import pytest

from salver.security.redaction import redacted, redacted_words, secrets_among, without

SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    "text",
    [
        f"--password={SECRET}",
        f"--db-password {SECRET} --epochs 3",
        f"DB_PASSWORD={SECRET}",
        f"no access: https://ann:{SECRET}@db.example/x",
        f"postgresql://ann:{SECRET}@db/x",
        f"GET /x?api_key={SECRET}&page=2",
        f"Authorization: Bearer {SECRET}",
        f'{{"access_token": "{SECRET}", "epochs": 3}}',
        f"Wrong credentials='{SECRET}'",
        f"AWS_SECRET_ACCESS_KEY: {SECRET}",
    ],
)
def test_what_is_written_like_a_secret_is_left_out(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "the command ended with code 3: no data",
        "python /srv/train.py --epochs 3 --tokenizer bert --max-tokens 512 --author ann",
        "https://example.com:8080/path",
        "--keys a,b --pass-through",
        "ValueError: authentication failed",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert redacted(text) == text
    assert redacted_words(text.split()) == tuple(text.split())


def test_the_value_behind_an_option_that_says_so_is_left_out_wherever_it_stands() -> None:
    words = ("train", "--token", SECRET, "--secret-file=/run/secret", "-v")
    assert redacted_words(words) == ("train", "--token", "***", "--secret-file=***", "-v")
    assert without(f"{SECRET} is not valid", secrets_among(words)) == "*** is not valid"


def test_a_short_value_is_not_hidden_in_other_words() -> None:
    assert without("a cat sat", ["at", ""]) == "a cat sat"
