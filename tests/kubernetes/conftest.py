"""A cluster for all tests of this folder, or one line that says what it lacks on this machine."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.kubernetes import binaries
from tests.kubernetes.cluster import SHARED_CRDS, Cluster, node_is_missing
from tests.kubernetes.installation import FOR_ENVOY_GATEWAY, NAMESPACE, install

SLOW_VARIABLE = "POINTSMAN_SLOW"
"""Where it is set the tests that take minutes run too."""
TEST_S = 180
"""Of one test, the start of the cluster by the first one included."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_S))
        if item.get_closest_marker("slow") is not None and SLOW_VARIABLE not in os.environ:
            item.add_marker(pytest.mark.skip(reason="takes minutes: make test-kubernetes"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails in a cluster tells what the controllers there had to say."""
    report = yield
    found = getattr(item, "funcargs", {}).values()
    clusters = {id(each): each for each in found if isinstance(each, Cluster)}
    if report.failed:
        report.sections += [(NAMESPACE, _story(each)) for each in clusters.values()]
    return report


def _story(cluster: Cluster) -> str:
    try:
        return cluster.story(NAMESPACE)
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        return f"The cluster does not tell: {error!r}"


def absent(reason: str) -> None:
    """Skip what asks for this, or fail it where nothing may be skipped; no reason, no skip."""
    if reason and binaries.is_required(os.environ):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """The API server and the controllers; pods stay pending unless another test wants `cluster`."""
    absent(binaries.missing())
    with Cluster() as made:
        yield made


@pytest.fixture(scope="session")
def cluster(control_plane: Cluster) -> Cluster:
    """The cluster with a node that runs pods."""
    absent(node_is_missing())
    control_plane.start_node()
    return control_plane


@pytest.fixture(scope="session")
def crds(control_plane: Cluster) -> None:
    """The kinds of the Gateway API, of the inference extension and of Envoy Gateway."""
    absent("" if SHARED_CRDS.is_dir() else f"no {SHARED_CRDS}, where the CRDs of others are")
    control_plane.install_crds()


@pytest.fixture(scope="session")
def installed(cluster: Cluster, crds: None) -> Iterator[Cluster]:
    """Pointsman is installed, and serves the classes of Envoy Gateway too.

    Whatever the tests did, it never lacked a right: the manifests give exactly what it needs.
    """
    install(cluster, FOR_ENVOY_GATEWAY)
    yield cluster
    for log in cluster.folder.glob(f"pods/{NAMESPACE}/*/*.log"):
        refused = [
            line
            for line in log.read_text(errors="replace").lower().splitlines()
            # In a namespace that goes nobody may make anything.
            if "forbidden" in line and "is being terminated" not in line
        ]
        assert refused == [], log


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
