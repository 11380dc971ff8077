"""Which of its clients' words a route believes: annotations of the route, told to our picker.

    pointsman.dev/trust-objective-header: "true"    the objective, and so the priority
    pointsman.dev/trust-debug-header: "true"        the wish to be told how the picker decided

Nothing is believed by default: a client that could choose its own priority would, and a decision
shows who the model servers are. A value that is neither `true` nor `false` believes nothing either,
and the route says so in a condition; the route is served all the same. A picker that is not ours
hears nothing of it: whom it believes is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.inference import headers
from pointsman.resources.gateway_api import Route

PREFIX = "pointsman.dev/trust-"
OBJECTIVE = f"{PREFIX}objective-header"
DEBUG = f"{PREFIX}debug-header"

DECISION_FORMAT = f"%DYNAMIC_METADATA({headers.PICK_NAMESPACE}:{headers.DECISION_KEY})%"


@dataclass(frozen=True, slots=True)
class Trust:
    """What a route believes."""

    objective: bool = False
    debug: bool = False

    TOLD: ClassVar[Mapping[str, str]] = {
        "objective": headers.TRUST_METADATA,
        "debug": headers.TRUST_DEBUG_METADATA,
    }

    @property
    def metadata(self) -> list[dict[str, str]]:
        """The gRPC initial metadata that tells our picker."""
        return [
            {"key": key, "value": "true"} for name, key in self.TOLD.items() if getattr(self, name)
        ]


def trust_of(route: Route) -> Trust:
    """What the route's annotations say."""
    annotations = route.metadata.annotations
    return Trust(annotations.get(OBJECTIVE) == "true", annotations.get(DEBUG) == "true")


def problems(route: Route, *, has_own_picker: bool) -> Iterator[str]:
    """What is wrong with these annotations, in words.

    `has_own_picker`: our picker is asked for some request of the route.
    """
    for name, value in sorted(route.metadata.annotations.items()):
        if not name.startswith(PREFIX):
            continue
        place = f"metadata.annotations[{name}]"
        if name not in (OBJECTIVE, DEBUG):
            yield f"{place}: is not known; use {OBJECTIVE} or {DEBUG}"
        elif value not in ("true", "false"):
            yield f'{place}: must be "true" or "false", is "{value[:64]}"; nothing is believed'
        elif value == "true" and not has_own_picker:
            yield f"{place}: has no effect, since Pointsman picks for no InferencePool of the route"


def show_decision(target: route_pb2.Route | route_pb2.WeightedCluster.ClusterWeight) -> None:
    """Give the decision back in a response header, where the picker has told one."""
    target.response_headers_to_add.add(
        header={"key": headers.DECISION, "value": DECISION_FORMAT},
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
