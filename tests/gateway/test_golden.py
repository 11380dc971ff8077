"""Cases of the translator: `tests/golden/NAME/in.yaml` becomes `xds.yaml` and `status.yaml`.

`POINTSMAN_REWRITE_GOLDEN=1 pytest tests/gateway/test_golden.py` writes what comes out; the change
in behaviour is then a diff of YAML.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointsman.cli.translate import TYPES, shown
from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import Key, Snapshot
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import translate
from pointsman.resources.parse import parse_text
from pointsman.store import Store
from pointsman.xds.dry_run import check

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
REWRITE = os.environ.get("POINTSMAN_REWRITE_GOLDEN") == "1"

OPTIONS = Options(
    bind_address="127.0.0.1",
    advertised_address="127.0.0.1",
    own_picker_socket="/run/picker.sock",
    is_alone=True,
)

SAME_FOR_ALL = (
    "early_header_mutation_extensions",
    "common_http_protocol_options",
    "http2_protocol_options",
    "internal_address_config",
    "local_reply_config",
    "merge_slashes",
    "normalize_path",
    "path_with_escaped_slashes_action",
    "request_headers_timeout",
    "server_header_transformation",
    "use_remote_address",
)
"""What every connection manager of ours has; a case shows only where one has something else."""

PLAIN = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway}
spec: {gatewayClassName: pointsman, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""


def loaded(text: str) -> Store:
    store = Store()
    parsed = parse_text(text, "in.yaml", strict=True)
    problems = [str(problem) for item in parsed for problem in item.problems]
    assert problems == []
    store.apply(item.resource for item in parsed if item.resource is not None)
    return store


def without_sameness(value: Any, plain: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [without_sameness(item, plain) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: without_sameness(item, plain) for key, item in value.items()}
    if "rds" not in value:
        return found
    same = {key for key in SAME_FOR_ALL if value.get(key) == plain.get(key)}
    gone = {key: None for key in SAME_FOR_ALL if key in plain and key not in value}
    return gone | {
        key: item for key, item in found.items() if key not in same and key != "local_reply_config"
    }


def plain_manager() -> dict[str, Any]:
    resources = shown(translate(loaded(PLAIN), OPTIONS).snapshot, tuple(TYPES))
    chain = resources["listeners"][0]["default_filter_chain"]
    manager: dict[str, Any] = chain["filters"][0]["typed_config"]
    return manager


def compare(path: Path, value: Any) -> None:
    text = yaml.safe_dump(value, sort_keys=True, width=100)
    if REWRITE:
        path.write_text(text)
    assert yaml.safe_load(path.read_text()) == value


@pytest.mark.parametrize("case", CASES)
def test_manifests_become_what_the_golden_files_say(case: str) -> None:
    folder = GOLDEN / case
    store = loaded((folder / "in.yaml").read_text())
    found = translate(store, OPTIONS)
    listeners = frozenset(name for item in found.listeners for name in item.sockets.values())
    facts = EnvoyFacts(connected=1, listeners=listeners)
    told = statuses(store, found, facts, OPTIONS)
    resources = without_sameness(shown(found.snapshot, tuple(TYPES)), plain_manager())
    compare(folder / "xds.yaml", {title: items for title, items in resources.items() if items})
    for status in told.values():
        status.pop("supportedFeatures", None)
    compare(folder / "status.yaml", {str(ref): status for ref, status in sorted(told.items())})


@pytest.mark.e2e
@pytest.mark.parametrize("case", CASES)
def test_the_real_envoy_takes_every_golden_case(case: str) -> None:
    found = translate(loaded((GOLDEN / case / "in.yaml").read_text()), OPTIONS)
    asyncio.run(check(found.snapshot))


def test_translating_twice_gives_the_same_bytes() -> None:
    for case in CASES:
        store = loaded((GOLDEN / case / "in.yaml").read_text())
        assert contents(translate(store, OPTIONS).snapshot) == contents(
            translate(store, OPTIONS).snapshot
        )


def contents(found: Snapshot) -> dict[Key, bytes]:
    return {item.key: item.content for item in found}
