"""Signatures of webhooks: the example of the specification, and keys that are nobody else's."""

import base64

from salver.security.signing import secret_text, signature_headers, webhook_secret


def test_the_example_of_the_specification_is_reproduced():
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_webhook_of_each_home_has_its_own_secret():
    secrets = {webhook_secret(pepper, name) for pepper in (b"a" * 32, b"b" * 32) for name in ("x", "y")}
    assert len(secrets) == 4
    assert all(len(secret) == 32 for secret in secrets)


def test_a_secret_is_written_as_receivers_read_it():
    text = secret_text(b"\xff" * 32)
    assert text.startswith("whsec_")
    assert base64.b64decode(text.removeprefix("whsec_")) == b"\xff" * 32
