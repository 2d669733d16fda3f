"""However a run is stopped, it leaves no process and no shared-memory file behind."""

import os
import signal

import pytest
from tiny_run import shared_memory_files, tiny_flags


def stop_after_first_step(tmp_path, launch, how) -> tuple[int, str]:
    before = shared_memory_files()
    run = launch(tiny_flags(tmp_path, total_episodes=16 * 500, local_eval_every=-1))
    run.wait_for("step   1/500")
    how(run.process.pid)
    code = run.process.wait(60)
    assert run.left_behind() == []
    assert shared_memory_files() <= before
    return code, run.output()


@pytest.mark.timeout(360)
@pytest.mark.slow
def test_kill_of_the_driver(tmp_path, launch):
    code, output = stop_after_first_step(tmp_path, launch, lambda pid: os.kill(pid, signal.SIGTERM))
    assert code == 143, output
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_ctrl_c_reaches_the_whole_process_group(tmp_path, launch):
    code, output = stop_after_first_step(tmp_path, launch, lambda pid: os.killpg(pid, signal.SIGINT))
    assert code == 130, output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_kill_9_of_the_driver(tmp_path, launch):
    code, _ = stop_after_first_step(tmp_path, launch, lambda pid: os.kill(pid, signal.SIGKILL))
    assert code == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_ctrl_c_while_the_models_are_loading(tmp_path, launch):
    before = shared_memory_files()
    run = launch(tiny_flags(tmp_path))
    run.wait_for("plan:")
    run.wait_for("data preparation")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(60) == 130, run.output()
    assert run.left_behind() == []
    assert shared_memory_files() <= before
