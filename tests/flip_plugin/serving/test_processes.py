"""Child processes that cannot outlive us, their logs, and a heap that the garbage collector leaves alone."""

import gc
import subprocess
import sys
import weakref

from process_cases import gone

from flip_plugin.serving.processes import freeze_heap, stop_child, tail


class Knot:
    """Holds itself, so that only the garbage collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_only_earlier_objects_are_frozen():
    old = weakref.ref(Knot())  # garbage already: goes before the freeze
    try:
        freeze_heap()
        assert old() is None
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 10_000
        new = weakref.ref(Knot())
        gc.collect()
        assert new() is None
    finally:
        gc.unfreeze()


def test_tail_reads_the_end_of_a_large_log_only(tmp_path):
    log = tmp_path / "log"
    log.write_text("old\n" * 500_000 + "an error\nlast\n")
    assert tail(log, 2) == "an error\nlast"
    assert tail(log, 20, start=log.stat().st_size - 5) == "last"
    assert tail(tmp_path / "none") == ""


def test_stop_child_takes_what_an_ended_child_left():
    script = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    left = int(child.stdout.readline())
    child.wait(10)
    stop_child(child)
    assert gone(left)
