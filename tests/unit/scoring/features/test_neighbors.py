"""What neighbours are where there are ties, groups, zeros and too few examples."""

from __future__ import annotations

import numpy as np

from dermalyze.scoring.features import neighbors


def test_ties_go_to_the_first_and_do_not_depend_on_chunks(monkeypatch):
    known = np.tile([[1.0, 0.0], [0.0, 1.0]], (5, 1))
    asked = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    whole = neighbors.nearest(asked, known, 4)
    monkeypatch.setattr(neighbors, "CHUNK_NUMBERS", 10)  # one query at a time
    parts = neighbors.nearest(asked, known, 4)
    assert whole[0].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7], [0, 1, 2, 3]]
    np.testing.assert_array_equal(whole[0], parts[0])


def test_a_row_of_zeros_is_at_distance_1_of_everything():
    _, distance = neighbors.nearest(np.zeros((1, 3)), np.eye(3), 3)
    assert distance.tolist() == [[1.0, 1.0, 1.0]]


def test_one_image_a_group_and_fewer_where_there_are_fewer_groups():
    far = np.array([0.3, 0.1, 0.2, 0.4])
    assert neighbors.nearest_groups(far, ["a", "a", "b", "b"], 9) == [1, 2]


def test_shots_are_of_different_groups_and_all_classes():
    labels = np.repeat([0, 1], 30)
    groups = [f"{i // 3}" for i in range(60)]  # 10 groups a class
    seen = set()
    for seed in range(20):
        rows = neighbors.draw_shots(labels, groups, 10, np.random.default_rng(seed))
        assert rows is not None
        assert np.bincount(labels[rows]).tolist() == [10, 10]
        assert len({groups[row] for row in rows}) == 20
        seen.update(rows.tolist())
    assert len(seen) == 60  # whichever image of a group comes is drawn too
    assert neighbors.draw_shots(labels, groups, 11, np.random.default_rng(0)) is None
