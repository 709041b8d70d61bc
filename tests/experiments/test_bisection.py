import pytest

from jnnk.experiments.bisection import last_true


class Counted:
    def __init__(self, turn):
        self.turn, self.asked = turn, []

    def __call__(self, n):
        assert n not in self.asked
        self.asked.append(n)
        return n <= self.turn


@pytest.mark.parametrize("guess", [None, 0, 1, 40, 99, 100])
@pytest.mark.parametrize("turn", [0, 1, 39, 40, 41, 77, 98, 99])
def test_finds_the_turning_point(turn, guess):
    is_true = Counted(turn)
    assert last_true(is_true, low=0, high=100, guess=guess) == turn
    assert all(0 < n < 100 for n in is_true.asked)
    assert len(is_true.asked) <= (7 if guess is None else 14)


def test_a_good_guess_saves_evaluations():
    for off, most in ((0, 2), (1, 2), (-1, 4), (3, 5), (-4, 6)):
        is_true = Counted(500)
        assert last_true(is_true, low=0, high=1000, guess=500 + off) == 500
        assert len(is_true.asked) <= most, off


def test_of_several_turning_points_one_is_found():
    true = {0, 1, 2, 5, 6}
    found = last_true(true.__contains__, low=0, high=10)
    assert found in true and found + 1 not in true


def test_nothing_to_search():
    assert last_true(Counted(3), low=3, high=4) == 3
    with pytest.raises(ValueError, match="high"):
        last_true(Counted(3), low=3, high=3)
