"""A clock that jumps is not believed until it has run steadily for a while."""

from fotahook.delivery.runtime import JUMP_SECONDS, TRUST_SECONDS, ClockWatch

DAY = 86400.0


class Clocks:
    def __init__(self) -> None:
        self.now = 1000.0
        self.ahead = 0.0
        self.watch = ClockWatch(lambda: self.now)
        self.now += TRUST_SECONDS

    def read(self) -> bool:
        return self.watch.is_steady(1.7e9 + self.now + self.ahead)

    def steady_after(self, seconds: float) -> bool:
        self.now += seconds
        return self.read()


def test_a_clock_that_runs_is_steady() -> None:
    clocks = Clocks()
    assert all(clocks.steady_after(step) for step in (0, 1, 3600, 40 * DAY))


def test_adjustments_are_no_jumps() -> None:
    clocks = Clocks()
    for _ in range(100):
        clocks.ahead += JUMP_SECONDS - 1
        assert clocks.steady_after(1)


def test_a_jump_is_believed_after_ten_minutes() -> None:
    for jump in (40 * DAY, -DAY, JUMP_SECONDS + 1):
        clocks = Clocks()
        assert clocks.read()
        clocks.ahead = jump
        assert not clocks.steady_after(1)
        assert not clocks.steady_after(TRUST_SECONDS - 1)
        assert clocks.steady_after(1)


def test_a_jump_back_starts_the_time_of_trust_anew() -> None:
    clocks = Clocks()
    assert clocks.read()
    clocks.ahead = 40 * DAY
    assert not clocks.steady_after(1)
    clocks.ahead = 0
    assert not clocks.steady_after(6)
    assert not clocks.steady_after(TRUST_SECONDS - 1)
    assert clocks.steady_after(1)


def test_a_jump_back_is_told_once() -> None:
    clocks = Clocks()
    told = []
    for ahead in (0, 40 * DAY, 40 * DAY, 0, 0, -DAY, -DAY - JUMP_SECONDS):
        clocks.ahead = ahead
        clocks.read()
        told.append(clocks.watch.went_back)
    assert told == [False, False, False, True, False, True, False]


def test_a_clock_that_may_be_wrong_from_the_start_is_believed_after_ten_minutes() -> None:
    clocks = Clocks()
    clocks.watch = ClockWatch(lambda: clocks.now)
    assert not clocks.read()
    assert not clocks.steady_after(TRUST_SECONDS - 1)
    assert clocks.steady_after(1)


def test_what_was_written_before_a_jump_is_so_much_younger_than_it_says() -> None:
    clocks = Clocks()
    told = []
    for ahead in (0, JUMP_SECONDS, 40 * DAY, 0, -40 * DAY, 0):
        clocks.ahead = ahead
        clocks.read()
        told.append(clocks.watch.ahead)
    # The last one was behind meanwhile, and what was written then is as old as it says plus the way back.
    assert told == [0, 0, 40 * DAY, 0, 0, 40 * DAY]
