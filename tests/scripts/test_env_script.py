"""`env.sh`, run for real against a `uv` that only writes down its arguments."""

import re
import shutil
import time


def test_the_second_call_does_nothing_and_is_quick(tree):
    tree.ok("scripts/env.sh")
    calls = tree.calls()
    assert any("-r requirements/cpu.txt" in call for call in calls)
    assert "--no-deps --no-build-isolation -e . -e open-instruct" in calls[-1]
    start = time.monotonic()
    again = tree.ok("scripts/env.sh")
    assert time.monotonic() - start < 1.0
    assert tree.calls() == [] and again.stderr == "" and again.stdout == ""


def test_a_changed_lock_is_installed_over_the_old_one(tree):
    tree.ok("scripts/env.sh")
    tree.calls()
    with (tree.root / "requirements/cpu.txt").open("a") as lock:
        lock.write("# changed\n")
    tree.ok("scripts/env.sh")
    calls = tree.calls()
    assert any("-r requirements/cpu.txt" in call for call in calls)
    assert not any(call.startswith("venv") for call in calls)


def test_another_python_starts_afresh(tree):
    tree.ok("scripts/env.sh", FLIP_PYTHON="3.11")
    tree.calls()
    tree.ok("scripts/env.sh", FLIP_PYTHON="3.12")
    assert "--python 3.12" in tree.calls()[0]
    tree.ok("scripts/env.sh", FLIP_PYTHON="3.12")
    tree.ok("scripts/env.sh")
    assert tree.calls() == []


def test_an_interrupted_install_starts_afresh(tree):
    failed = tree.run("scripts/env.sh", UV_FAIL="-r requirements")
    assert failed.returncode != 0
    assert "uv says no" in failed.stderr and "run this again" in failed.stderr
    assert not any("-e open-instruct" in call for call in tree.calls())
    tree.ok("scripts/env.sh")
    assert any(call.startswith("venv") for call in tree.calls())
    tree.ok("scripts/env.sh")
    assert tree.calls() == []


def test_a_killed_install_is_noticed(tree):
    process = tree.start("scripts/env.sh", UV_SLEEP="1")
    while not (tree.root / ".venv/.flip-busy").exists():
        time.sleep(0.02)
    process.kill()
    process.communicate()
    tree.calls()
    tree.ok("scripts/env.sh")
    assert any(call.startswith("venv") for call in tree.calls())


def test_another_kind_or_folder_starts_afresh(tree):
    tree.ok("scripts/env.sh", "cpu")
    tree.calls()
    tree.ok("scripts/env.sh", FLIP_ENV="gpu")
    calls = tree.calls()
    assert calls[0].startswith("venv") and any("-r requirements/gpu.txt" in call for call in calls)
    assert not any("override" in call for call in calls)
    tree.root = tree.root.rename(tree.root.with_name("moved"))
    tree.ok("scripts/env.sh", "gpu")
    assert tree.calls()[0].startswith("venv")


def test_a_gpu_is_found_by_asking_the_driver(tree):
    tree.program("nvidia-smi", "#!/usr/bin/env bash\necho 'GPU 0: some card'\n")
    tree.ok("scripts/env.sh")
    assert (tree.root / ".venv/.flip-env").read_text().startswith("gpu ")
    tree.program("nvidia-smi", "#!/usr/bin/env bash\necho 'no driver'; exit 9\n")
    tree.ok("scripts/env.sh")
    assert (tree.root / ".venv/.flip-env").read_text().startswith("cpu ")


def test_two_at_once_install_once(tree):
    both = [tree.start("scripts/env.sh", UV_SLEEP="0.2") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert sum(call.startswith("venv") for call in tree.calls()) == 1


def test_cpu_torch_comes_from_wheel_folder_or_own_index(tree):
    tree.ok("scripts/env.sh", PIP_FIND_LINKS="wheels")
    torch = [call for call in tree.calls() if re.search(r" torch==\S+\+cpu", call)]
    assert len(torch) == 1 and "[UV_FIND_LINKS=wheels]" in torch[0] and "--torch-backend" not in torch[0]
    shutil.rmtree(tree.root / ".venv")
    tree.ok("scripts/env.sh", UV_FAIL=r"--no-deps torch==")
    torch = [call for call in tree.calls() if re.search(r" torch==\S+\+cpu", call)]
    assert len(torch) == 2 and "--torch-backend cpu" in torch[1]


def test_uv_is_installed_into_the_tree_where_it_is_missing(tree):
    (tree.bin / "uv").rename(tree.bin / "uv-elsewhere")
    pip = (
        '#!/usr/bin/env bash\necho "$*" >>"$UV_LOG"\n'
        '[[ "$3" == --version ]] && exit 0\n'
        'while [[ "$1" != --target ]]; do shift; done\n'
        f'mkdir -p "$2/bin"; cat "{tree.bin}/uv-elsewhere" >"$2/bin/uv"; chmod +x "$2/bin/uv"\n'
    )
    tree.program("python3", pip)
    tree.ok("scripts/env.sh")
    assert any("--target" in call and "uv>=" in call for call in tree.calls())
    assert (tree.root / ".venv-tools/.gitignore").read_text() == "*\n"
    shutil.rmtree(tree.root / ".venv")
    tree.ok("scripts/env.sh")  # the one it installed is found again
    assert not any("--target" in call for call in tree.calls())


def test_neither_uv_nor_pip_is_said(tree):
    (tree.bin / "uv").unlink()
    failed = tree.run("scripts/env.sh")
    assert failed.returncode == 1 and "neither uv nor pip" in failed.stderr


def test_an_unknown_kind_is_refused(tree):
    failed = tree.run("scripts/env.sh", "tpu")
    assert failed.returncode == 1 and "say cpu or gpu" in failed.stderr
