"""What a container runs as on this machine: one of our own commands, or its real one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pointsman.resources.core import Container, Probe
from pointsman.standalone import commands, images
from pointsman.standalone.images import Surroundings
from pointsman.standalone.processes import own_command


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to be, in the place of a container."""

    argv: tuple[str, ...]
    readiness: Probe | None = None
    """How to ask whether it is ready, where the manifest does not say."""
    admin_socket: Path | None = None
    """Where a picker answers questions about its endpoints."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Chooses what stands for a container."""

    prefers_real: bool = False
    """Run a container's own command where it is installed."""

    def knows(self, container: Container) -> bool:
        """Whether anything can stand for it."""
        if images.is_known(container.image):
            return True
        return self.prefers_real and commands.real_command(container) is not None

    def launch(self, container: Container, around: Surroundings) -> Launch | None:
        """The process; None where nobody knows the image."""
        if self.prefers_real:
            line = commands.real_command(container)
            if line is not None:
                argv, readiness = commands.placed(container, line, around)
                return Launch(bound_to_parent(argv), readiness)
        found = images.stand_in(container, around)
        if found is None:
            return None
        argv = own_command(found.command, found.arguments)
        return Launch(argv, found.readiness, found.admin_socket)


def bound_to_parent(argv: tuple[str, ...]) -> tuple[str, ...]:
    """A command line that ends with this process, for programs that do not watch their input."""
    return (sys.executable, "-m", "pointsman.standalone.bound", *argv)
