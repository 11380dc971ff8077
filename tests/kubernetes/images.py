"""What runs in the place of an image: nothing is pulled, every image is one of our commands.

An image whose repository ends in `pointsman` is this checkout: its entry point is `pointsman`, its
user is not root, and any other program of this machine can be its command too. The images of the
guides are those that `pointsman run` has stand-ins for. The backend of the conformance suite is
built from its source; the name server beside it, for tests that are not run, does nothing. There is
no other.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from pointsman.resources.core import Container
from pointsman.standalone.addresses import Place
from pointsman.standalone.images import Surroundings, stand_in
from tests.kubernetes.api import Object
from tests.kubernetes.binaries import CONFORMANCE_PROGRAMS, ECHO

OWN = re.compile(r"(^|/)pointsman(:[\w.-]+)?(@sha256:[0-9a-f]+)?$")
SUITE_BACKEND = re.compile(rf"(^|/)gateway-api/{ECHO}(:[\w.-]+)?$")
SUITE_NAME_SERVER = re.compile(r"(^|/)coredns(:[\w.-]+)?$")
NOT_ROOT = 65532
ROOT = 0
EVERYWHERE = "0.0.0.0"


@dataclass(frozen=True)
class Image:
    """What is known of an image."""

    arguments: tuple[str, ...]
    """The whole command line, before variables are put in."""
    user: int


def image_for(container: Object) -> Image | None:
    """The image of a container; None where nothing can run in its place."""
    reference = container.get("image", "")
    command, given = container.get("command") or (), container.get("args") or ()
    if OWN.search(reference):
        return Image((*(command or ("pointsman",)), *given), NOT_ROOT)
    if SUITE_BACKEND.search(reference):
        place = CONFORMANCE_PROGRAMS.folder
        return Image((str(place / ECHO),), ROOT) if place is not None else None
    if SUITE_NAME_SERVER.search(reference):
        return Image(("sleep", "infinity"), ROOT)
    typed = Container.model_validate(
        {"name": container["name"], "image": reference, "command": command, "args": given}
    )
    around = Surroundings(Place(EVERYWHERE), Path("/nowhere"), Path("/nowhere"), {})
    found = stand_in(typed, around)
    if found is None:
        return None
    # In a cluster a picker finds its pool by itself and a sidecar its neighbour: only a model
    # server has to be told where to listen.
    arguments = found.arguments if found.command == "modelserver" else given or command[1:]
    user = NOT_ROOT if found.command == "picker" else ROOT
    return Image((sys.executable, "-m", "pointsman", found.command, *arguments), user)
