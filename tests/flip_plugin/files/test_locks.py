"""Locks: who holds a place keeps others out, says who it is, and lets go with its process."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from filelock import FileLock, Timeout

from flip_plugin.errors import CommandError
from flip_plugin.files.locks import InUseError, file_lock, folder_lock, hold, hold_file, let_go, let_go_file

HOLDER = """
import sys
from flip_plugin.files.locks import hold
sys.argv = ["/usr/bin/flip", "score", "--api_base", "http://me:pw@127.0.0.1/v1"]
hold(FOLDER)
print("held", flush=True)
input()
"""


def is_free(folder):
    """True when another process could lock the folder: a lock is one of an open file, not of a process."""
    try:
        FileLock(folder / ".lock").acquire(blocking=False).lock.release()
    except Timeout:
        return False
    return True


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path`."""
    command = [sys.executable, "-c", HOLDER.replace("FOLDER", repr(str(tmp_path)))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_refused_until_it_is_killed(holder, tmp_path):
    message = rf"another run is under way there \(process {holder.pid} on .*: flip score --api_base http"
    with pytest.raises(CommandError, match=message) as refused:
        hold(tmp_path)
    assert "(hidden)@127.0.0.1" in str(refused.value) and "pw" not in str(refused.value)
    with pytest.raises(InUseError, match=rf"process {holder.pid} "):
        folder_lock(tmp_path).acquire()
    holder.kill()
    holder.wait()
    hold(tmp_path)
    let_go(tmp_path)


def test_a_process_may_hold_a_place_twice(tmp_path):
    hold(tmp_path)
    hold(tmp_path)
    assert not is_free(tmp_path)
    let_go(tmp_path)
    assert is_free(tmp_path)


def test_a_second_lock_of_the_same_process_is_refused(tmp_path):
    first, second = folder_lock(tmp_path), folder_lock(tmp_path)
    first.acquire()
    with pytest.raises(InUseError, match=f"process {os.getpid()} "):
        second.acquire()
    second.release()
    assert not is_free(tmp_path)
    first.release()
    second.acquire()
    second.release()


def test_a_file_is_locked_beside_it(tmp_path):
    output = tmp_path / "new" / "out.jsonl"
    hold_file(output)
    assert not output.exists() and [path.name for path in output.parent.iterdir()] == [".out.jsonl.lock"]
    with pytest.raises(InUseError):
        file_lock(output).acquire()
    let_go_file(output)
    hold_file(output)
    let_go_file(output)


def test_a_folder_that_was_removed_is_locked_again(tmp_path):
    hold(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    hold(tmp_path / "run")
    assert not is_free(tmp_path / "run")
    let_go(tmp_path / "run")
    assert is_free(tmp_path / "run")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_holds_nothing(tmp_path):
    hold(tmp_path)
    stop, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(stop, 1)
        os._exit(0)
    try:
        assert not is_free(tmp_path)
        let_go(tmp_path)
        assert is_free(tmp_path)  # although the child has the file open, too
    finally:
        os.write(go_on, b".")
        os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_refused_as_any_other(tmp_path):
    hold(tmp_path)
    child = os.fork()
    if child == 0:
        try:
            hold(tmp_path)
        except CommandError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not is_free(tmp_path)  # and its end let nobody in
    let_go(tmp_path)


def test_a_lock_holds_no_logins(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flip", "eval", "--judges", "hosted_vllm/m@http://me:secret@127.0.0.1:1/v1"])
    hold(tmp_path)
    let_go(tmp_path)
    assert "127.0.0.1" in (tmp_path / ".lock").read_text() and "secret" not in (tmp_path / ".lock").read_text()


def test_a_holder_that_has_not_said_who_it_is(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(CommandError, match=r"another run is under way there\. Wait"):
        hold(tmp_path)
    hold(tmp_path)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    let_go(tmp_path)


def test_a_file_system_without_locks_is_tolerated(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    hold(tmp_path)
    lock = folder_lock(tmp_path)
    lock.acquire()
    lock.release()
    let_go(tmp_path)
