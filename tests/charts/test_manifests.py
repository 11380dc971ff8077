from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pointsman import __version__
from pointsman.resources.parse import parse_text
from tests.charts.manifests import CHARTS, DEPLOY, RENDERINGS, ROOT
from tests.charts.objects import Objects, assert_restricted, rights
from tests.charts.test_pointsman import IN_NAMESPACES, IN_THE_CLUSTER, OF_A_PICKER


@pytest.mark.parametrize("name", RENDERINGS)
def test_the_manifests_are_what_the_charts_render(helm: None, name: str) -> None:
    assert (DEPLOY / name).read_text() == RENDERINGS[name].text(), "run `make manifests`"


def test_there_are_no_other_manifests() -> None:
    assert sorted(path.name for path in DEPLOY.iterdir()) == sorted(RENDERINGS)


@pytest.mark.parametrize("name", RENDERINGS)
def test_the_manifests_are_good(name: str) -> None:
    found = Objects.of((DEPLOY / name).read_text())

    for deployment in found.all("Deployment"):
        assert_restricted(deployment)
    for item in found:
        assert item["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") is None


@pytest.mark.parametrize("name", [name for name in RENDERINGS if name.startswith("pointsman")])
def test_the_manifests_give_the_rights_of_the_controller(name: str) -> None:
    found = Objects.of((DEPLOY / name).read_text())

    assert rights(found.one("ClusterRole", "pointsman-controller")) == {
        **IN_NAMESPACES,
        **IN_THE_CLUSTER,
    }
    assert rights(found.one("ClusterRole", "pointsman-picker")) == OF_A_PICKER
    assert found.items[0]["kind"] == "Namespace"
    assert parse_text((DEPLOY / name).read_text(), name)


@pytest.mark.parametrize("chart", ["pointsman", "inferencepool"])
def test_charts_have_the_version_of_the_application(chart: str) -> None:
    found = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())

    assert (found["version"], found["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("chart", ["pointsman", "inferencepool"])
def test_each_value_is_explained_where_it_is_not_plain(chart: str) -> None:
    text = (CHARTS / chart / "values.yaml").read_text()

    assert text.count("# --") >= 20
    assert not (Path(ROOT) / "charts" / chart / "crds").exists()
