from __future__ import annotations

from salver.protocol.signature import Signature, TensorSpec
from salver.registry.by_number import Highest
from salver.registry.matrix import compatibility_matrix, last_uses
from salver.registry.usage import VersionUse
from salver.testing import make_manifest

X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 2))
WIDE = TensorSpec("x", "FP32", (-1, 5))
OLD = make_manifest(version="1.0.0", signature=Signature((X,), (Y,)))
NEW = make_manifest(version="2.0.0", ordinal=2, signature=Signature((WIDE,), (Y,)))
BACK = make_manifest(version="3.0.0", ordinal=3, signature=Signature((X,), (Y,)))


ALL = Highest((OLD, NEW, BACK), 3)


def use(client="ci", version="1.0.0", last_s=1.0, endpoint="digits") -> VersionUse:
    return VersionUse("digits", version, endpoint, client, 7, 0.0, last_s)


def test_each_pair_says_what_a_client_of_the_one_meets_in_the_other() -> None:
    found = compatibility_matrix("digits", ALL, [])
    levels = {(cell.client_version, cell.server_version): cell.level for cell in found.cells}
    assert levels["1.0.0", "2.0.0"] == levels["2.0.0", "1.0.0"] == "major"
    assert levels["1.0.0", "3.0.0"] == "patch"
    assert len(levels) == 6


def test_a_client_is_shown_with_what_it_asked_last() -> None:
    found = compatibility_matrix("digits", ALL, last_uses([use(last_s=9.0), use(version="2.0.0", last_s=3.0)]))
    (client,) = found.clients
    assert (client.version, client.breaks_with) == ("1.0.0", ("2.0.0",))


def test_lower_versions_are_left_out_and_counted() -> None:
    found = compatibility_matrix("digits", Highest((OLD, BACK), 7), [use()])
    assert (found.versions, found.left_out) == (("1.0.0", "3.0.0"), 5)
