"""Local stores of generations that are no more go; those of others, other slots and other pipelines stay."""

from __future__ import annotations

from pathlib import Path

from streaming.generations.stores import folder, sweep


def test_only_stores_of_this_slot_and_of_slices_go_and_only_of_what_is_over(tmp_path: Path) -> None:
    mine = [folder(tmp_path, "city.g1", 0), folder(tmp_path, "city.g1", "slice3")]
    of_slot_0 = ("city.g2", "city.g11", "city-two.g1", "cityxg1")
    others = [
        *(folder(tmp_path, generation, 0) for generation in of_slot_0),
        *(folder(tmp_path, "city.g1", slot) for slot in (1, 10)),
        folder(tmp_path, "city.g2", "slice3"),
        tmp_path / "city.g1.slot0.kept",
    ]
    for store in (*mine, *others):
        (store / "0").mkdir(parents=True)
        (store / "0" / "CURRENT").write_text("MANIFEST")
    assert sweep(tmp_path, "city", 0, lambda number: number == 1) == sorted(mine)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    assert sweep(tmp_path, "city", 0, lambda number: number == 1) == []


def test_where_no_worker_ever_ran_there_is_nothing_to_delete(tmp_path: Path) -> None:
    assert sweep(tmp_path / "new", "city", 0, lambda _: True) == []
