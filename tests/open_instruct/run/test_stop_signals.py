"""A first signal asks, a second one insists, and patience ends."""

import os
import signal
import threading
import time

import pytest

from open_instruct.run.stopping import StopSignals


@pytest.fixture(autouse=True)
def handlers_as_before():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_the_first_signal_asks(number, error, capfd):
    with StopSignals(patience=30) as stop:
        assert not stop.requested
        send(number)
        assert stop.requested
        assert isinstance(stop.error(), error)
    assert "at most 30 s" in capfd.readouterr().err
    assert getattr(stop.error(), "code", 143) == 143


def test_the_second_signal_ends_at_once():
    with pytest.raises(SystemExit) as ended, StopSignals(patience=30):
        send(signal.SIGTERM)
        send(signal.SIGTERM)
    assert ended.value.code == 143


def test_patience_ends():
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), StopSignals(patience=1):
        send(signal.SIGINT)
        time.sleep(20)
    assert time.monotonic() - start < 10


def test_no_alarm_is_left_behind():
    with StopSignals(patience=1):
        send(signal.SIGTERM)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_no_patience():
    with pytest.raises(SystemExit), StopSignals(patience=0):
        send(signal.SIGTERM)


def test_outside_the_main_thread_signals_are_left_alone():
    def body():
        with StopSignals(patience=1) as stop:
            assert not stop.requested

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
