"""`guard_children`: what a process started ends with it, `kill -9` included, though it knows nothing of us."""

import os
import signal
import subprocess
import sys
import time

import pytest
from process_cases import gone, until

# Starts a child that has asked for nothing, and one of that child's; as vLLM's engine core is while it imports.
PARENT = """
import subprocess, sys, time
from flip_plugin.serving.processes import guard_children
guard_children()
nest = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
child = subprocess.Popen([sys.executable, "-S", "-c", nest])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's part of this is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_a_killed_process(how):
    ours = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert ours.stdout
    children = [int(ours.stdout.readline()) for _ in range(2)]
    assert not any(gone(pid) for pid in children)
    began = time.monotonic()
    os.kill(ours.pid, how)
    ours.wait(10)
    until(lambda: all(gone(pid) for pid in children))
    assert time.monotonic() - began < 5
    ours.stdout.close()
