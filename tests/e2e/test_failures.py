"""What dies comes back, and service resumes."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman.cli.run import example_path
from tests.e2e.instances import Instance, eventually, running

EXAMPLE = Path(example_path())

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def example() -> Iterator[Instance]:
    with running(ports=(8080,)) as instance:
        yield instance


def answers(instance: Instance, count: int = 1) -> bool:
    try:
        return all(instance.complete(8080, "support").status == 200 for _ in range(count))
    except OSError:
        return False


@pytest.mark.parametrize("what", ["envoy", "pointsman picker", "pointsman modelserver"])
def test_what_is_killed_comes_back_and_service_resumes(example: Instance, what: str) -> None:
    eventually(lambda: answers(example, 3))
    before = example.pids(what)
    victim = next(iter(before))
    os.kill(victim, signal.SIGKILL)
    assert eventually(
        lambda: len(example.pids(what)) == len(before) and victim not in example.pids(what)
    )
    assert eventually(lambda: answers(example, 10))


def test_a_pool_that_fails_open_answers_while_the_picker_is_down(example: Instance) -> None:
    eventually(lambda: answers(example, 3))
    picker = next(iter(example.pids("pointsman picker")))
    os.kill(picker, signal.SIGSTOP)
    try:
        # The model's name is a picker's business: the server behind knows only its adapters.
        direct = example.complete(8080, "support-v1")
        assert direct.status == 200
    finally:
        os.kill(picker, signal.SIGKILL)
    eventually(lambda: answers(example, 5))


def test_a_pool_that_fails_closed_answers_503_in_json_while_the_picker_is_down(
    tmp_path: Path,
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "m")
    path = tmp_path / "m" / "pool.yaml"
    path.write_text(path.read_text().replace("FailOpen", "FailClose"))
    with running(tmp_path / "m", ports=(8080,)) as instance:
        assert instance.complete(8080, "support").status == 200
        picker = next(iter(instance.pids("pointsman picker")))
        os.kill(picker, signal.SIGSTOP)
        try:
            refused = instance.complete(8080, "support")
        finally:
            os.kill(picker, signal.SIGKILL)
        assert refused.status == 503
        assert refused.json["error"]["code"] == "no_endpoint"
        assert "no healthy endpoint in pool default/llama" in refused.json["error"]["message"]
        eventually(lambda: answers(instance, 5))


def test_a_change_of_the_servers_template_drops_no_request(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "m")
    path = tmp_path / "m" / "model-servers.yaml"
    with running(tmp_path / "m", ports=(8080,)) as instance:
        before = set(instance.pids("pointsman modelserver"))
        stop = threading.Event()
        statuses: Counter[int] = Counter()

        def load() -> None:
            while not stop.is_set():
                statuses[instance.complete(8080, "support").status] += 1

        workers = [threading.Thread(target=load) for _ in range(4)]
        for worker in workers:
            worker.start()
        text = path.read_text()
        path.write_text(text.replace("--max-loras=2", "--max-loras=3"))
        try:
            eventually(lambda: _replaced(instance, before), 30)
        finally:
            stop.set()
            for worker in workers:
                worker.join(20)
        assert set(statuses) == {200}


def _replaced(instance: Instance, before: set[int]) -> bool:
    now = set(instance.pids("pointsman modelserver"))
    return len(now) == len(before) and not now & before
