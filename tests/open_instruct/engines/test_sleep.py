"""Who sleeps when, with --async_steps 0 on one GPU: the order of calls; sleeping itself needs a GPU."""

import asyncio
import http.server
import threading

import pytest

from open_instruct.engines.sleep import Turns


class Engines:
    def __init__(self):
        self.calls = []

    async def sleep(self):
        self.calls.append("sleep")

    async def wake_up(self):
        self.calls.append("wake_up")


@pytest.fixture
def judge():
    calls = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            calls.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", calls
    server.shutdown()
    server.server_close()


async def test_they_sleep_once_all_that_use_them_are_done(judge):
    url, calls = judge
    engines = Engines()
    turns = Turns(engines)  # ty: ignore[invalid-argument-type]
    turns.judged_by([url])
    leave = asyncio.Event()

    async def evaluation():
        async with turns.using():
            await leave.wait()

    running = asyncio.ensure_future(evaluation())
    await asyncio.sleep(0)
    resting = asyncio.ensure_future(turns.rest())
    await asyncio.sleep(0.01)
    assert engines.calls == [] and calls == [], "an evaluation still runs"
    leave.set()
    await asyncio.gather(running, resting)
    assert engines.calls == ["sleep"] and calls == ["/sleep?level=1"]
    await turns.rest()  # asleep already
    await turns.wake()
    await turns.wake()
    assert engines.calls == ["sleep", "wake_up"] and calls == ["/sleep?level=1", "/wake_up"]


async def test_a_judge_that_does_not_sleep_is_an_error():
    turns = Turns(Engines())  # ty: ignore[invalid-argument-type]
    turns.judged_by(["http://127.0.0.1:9/v1"])
    with pytest.raises(OSError, match="refused"):
        await turns.rest()
