"""What a process has loaded leaves the garbage collector's sight; what it makes later does not."""

import gc
import weakref

from flip_plugin.serving.processes import freeze_heap


class Knot:
    """Holds itself, so that only the garbage collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_only_what_was_there_is_kept():
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
