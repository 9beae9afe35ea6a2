"""Names beside points: readable where points are close, and inside of the picture."""

import itertools

import pytest

from tersely.reporting.page import point_labels
from tersely.reporting.page.point_labels import place_labels

BOUNDS = (0.0, 0.0, 400.0, 200.0)


def shared(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def test_a_label_stands_at_the_right_of_its_point():
    ((left, bottom, right, top),) = place_labels([(100, 100)], [30], bounds=BOUNDS)

    assert 100 < left < 110
    assert right - left == 30
    assert bottom < 105 < top


def test_at_the_right_edge_it_stands_at_the_left():
    ((_, _, right, _),) = place_labels([(390, 100)], [60], bounds=BOUNDS)

    assert 380 < right < 390


@pytest.mark.parametrize(
    "dots",
    [
        [(200, 100)] * 5,
        [(200 + 4 * n, 100 + n) for n in range(8)],
        [(395, 195), (398, 190), (390, 198)],
        [(2, 2), (2, 14), (20, 2)],
    ],
)
def test_labels_of_close_points_hide_neither_each_other_nor_a_point(dots):
    found = place_labels(dots, [60] * len(dots), bounds=BOUNDS)

    assert all(shared(one, other) == 0 for one, other in itertools.combinations(found, 2))
    assert all(shared(one, (x - 3, y - 3, x + 3, y + 3)) == 0 for one in found for x, y in dots)
    assert all(one[0] >= 0 and one[1] >= 0 and one[2] <= 400 and one[3] <= 200 for one in found)


def test_where_there_is_no_room_the_place_is_taken_that_hides_least():
    bounds = (0.0, 0.0, 100.0, 20.0)
    found = place_labels([(50.0, 7.0)] * 4, [30.0] * 4, bounds=bounds)

    def hidden(box, before):
        others = [(45.0, 2.0, 55.0, 12.0)] * 4 + before
        return 30 * 14 - shared(box, bounds) + sum(shared(box, other) for other in others)

    for place, box in enumerate(found):
        choices = point_labels._choices((50.0, 7.0), 30.0)
        least = min(hidden(one, found[:place]) for one in choices)
        assert hidden(box, found[:place]) == pytest.approx(least)
    assert hidden(found[1], found[:1]) == pytest.approx(0)
    assert hidden(found[3], found[:3]) > 0
