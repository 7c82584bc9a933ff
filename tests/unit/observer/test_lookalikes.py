"""Which names look alike: what differs to a machine and not to an eye, and nothing else."""

from __future__ import annotations

import pytest

from observer.lookalikes import alike, ascii_shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Berlin", "BERLIN"),
        ("Berlin", "B\u0435rlin"),
        ("Berlin", "\u0412erlin"),
        ("Berlin", "\uff22\uff45\uff52\uff4c\uff49\uff4e"),
        ("Köln", "Koln"),
        ("New York", "New  York"),
        ("New York", "NewYork"),
        ("Saint-Étienne", "Saint Etienne"),
        ("St. Gallen", "St Gallen"),
        ("Gießen", "Giessen"),
        ("葛城", "葛\U000e0100城"),
        ("Αθήνα", "Aθηνα"),
    ],
)
def test_row_15_names_that_look_alike_are_told(one: str, other: str) -> None:
    assert alike([("DE", one), ("DE", other), ("DE", "Hamburg")]) == [sorted([("DE", one), ("DE", other)])]


def test_other_cities_are_others() -> None:
    names = ["Berlin", "Bern", "Köln", "Kola", "東京", "京都", "Москва", "!", "?", "Ulm", "Olm"]
    assert alike([("DE", name) for name in names] + [("FR", "Berlin")]) == []


def test_a_country_may_be_what_looks_alike() -> None:
    assert alike([("DE", "Berlin"), ("de", "Berlin")]) == [[("DE", "Berlin"), ("de", "Berlin")]]


def test_what_the_eye_cannot_find_is_shown_beside_a_name() -> None:
    assert ascii_shown("B\u0435rlin") == "B\u0435rlin (U+0435)"
    assert ascii_shown("Berlin") == "Berlin"
