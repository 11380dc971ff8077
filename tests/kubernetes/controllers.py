"""`pointsman controller` as a process of this machine, which no pod of the cluster reaches."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.instances import eventually
from tests.ports import free_port

READY_S = 40.0
STOP_S = 20.0


@dataclass
class Controller:
    """One that runs."""

    process: subprocess.Popen[bytes]
    xds_port: int
    health_port: int
    metrics_port: int
    log: Path

    def get(self, port: int, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            return 0, str(error)
        finally:
            connection.close()

    @property
    def is_ready(self) -> bool:
        return self.get(self.health_port, "/readyz")[0] == 200

    def metric(self, name: str) -> float:
        lines = self.get(self.metrics_port, "/metrics")[1].splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def kill(self) -> None:
        """As a machine that loses its power."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)


@contextmanager
def controlling(
    kubeconfig: Path,
    folder: Path,
    namespace: str,
    *arguments: str,
    controllers: Sequence[str] = (),
    name: str = "controller",
    is_awaited: bool = True,
) -> Iterator[Controller]:
    """A controller that is installed in `namespace`, for as long as the context lasts."""
    ports = [free_port() for _ in range(3)]
    flags = [f"--controller-name={each}" for each in controllers]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pointsman", "controller"),
                *("--kubeconfig", str(kubeconfig), "--namespace", namespace, "--bind", "127.0.0.1"),
                *("--xds-port", str(ports[0]), "--health-port", str(ports[1])),
                *("--metrics-port", str(ports[2]), *flags, *arguments),
            ],
            env={**os.environ, "POD_NAME": name},
            stderr=output,
        )
    found = Controller(process, ports[0], ports[1], ports[2], log)
    try:
        if is_awaited:
            eventually(lambda: found.is_ready or process.poll() is not None, READY_S)
            assert process.poll() is None, log.read_text()
        yield found
    finally:
        if process.poll() is None:
            process.terminate()
        assert process.wait(STOP_S) in (0, -signal.SIGKILL), log.read_text()
