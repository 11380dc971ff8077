"""The original guide's own files, where they lie beside this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointsman.resources.envoy_gateway import EnvoyExtensionPolicy
from pointsman.resources.gateway_api import HTTPRoute
from pointsman.resources.parse import parse_object, parse_text

GUIDE = Path(__file__).parents[3] / "shared" / "guide"
FILES = sorted(GUIDE.glob("*/*.yaml"))

pytestmark = pytest.mark.skipif(not FILES, reason="the guide's files are not on this machine")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_file_is_read_without_a_word(path: Path) -> None:
    for parsed in parse_text(path.read_text(), str(path), strict=True):
        assert parsed.problems == ()
        assert parsed.resource is not None
        assert parse_object(parsed.resource.to_dict()).resource == parsed.resource


def test_a_rule_without_matches_gets_the_prefix_of_everything() -> None:
    text = (GUIDE / "eg" / "backend-and-route.yaml").read_text()
    route = next(
        item.resource for item in parse_text(text, "f") if isinstance(item.resource, HTTPRoute)
    )

    (match,) = route.spec.rules[0].matches
    assert (match.path.type, match.path.value) == ("PathPrefix", "/")


def test_a_response_without_a_value_is_absent() -> None:
    text = (GUIDE / "eg" / "extension-policy.yaml").read_text()
    (parsed,) = parse_text(text, "f")
    assert isinstance(parsed.resource, EnvoyExtensionPolicy)

    mode = parsed.resource.spec.ext_proc[0].processing_mode
    assert mode is not None
    assert mode.response is None
    assert mode.request is not None
    assert mode.request.body == "Buffered"
    assert [target.name for target in parsed.resource.spec.targets] == ["llm-route"]
