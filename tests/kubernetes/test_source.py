"""What is read of a real API server, through everything that can come in the way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from pointsman.cluster.controller import SECRETS
from pointsman.resources.base import Resource
from pointsman.resources.core import ConfigMap, Pod, Secret
from pointsman.resources.gateway_api import HTTPRoute
from pointsman.resources.inference_extension import InferencePool, InferencePoolV1Alpha2
from pointsman.resources.unused import CustomResourceDefinition
from pointsman.sources.kubernetes import reflector, source
from pointsman.sources.kubernetes.access import (
    Access,
    AccessError,
    InCluster,
    Kubeconfig,
    access,
)
from pointsman.sources.kubernetes.api import Api, ApiError
from pointsman.sources.kubernetes.pruning import pruned
from pointsman.sources.kubernetes.source import Interest, KubernetesSource
from pointsman.store import Store
from tests.e2e.instances import eventually
from tests.kubernetes.cluster import SHARED_CRDS, Cluster
from tests.kubernetes.faulty import FaultyServer, faulty, status, times

LIMIT_S = 30.0

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec: {parentRefs: [{name: front}]}
"""
POOLS = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: new}
spec:
  selector: {matchLabels: {app: vllm}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: old}
spec: {selector: {app: vllm}, targetPortNumber: 8000, extensionRef: {name: picker}}
"""


class Watched:
    """A source that runs, and its store."""

    def __init__(self, api: Api, interests: list[Interest]) -> None:
        self.store = Store()
        self.source = KubernetesSource(self.store, api, interests)

    def names(self, cls: type[Resource], namespace: str) -> set[str]:
        return {item.metadata.name for item in self.store.list(cls, namespace)}

    async def until(self, check: Callable[[], Any]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not check():  # noqa: ASYNC110 - a store has no such wait
                await asyncio.sleep(0.02)


@asynccontextmanager
async def watching(way: Access, *interests: Interest) -> AsyncIterator[Watched]:
    async with Api(way) as api:
        watched = Watched(api, list(interests))
        async with asyncio.timeout(LIMIT_S):
            await watched.source.start()
        following = asyncio.create_task(watched.source.follow())
        try:
            yield watched
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def config_map(name: str, value: str = "x") -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"ca.crt": value, "other": "y" * 1000},
        }
    )


@pytest.fixture
def way(control_plane: Cluster) -> Kubeconfig:
    return Kubeconfig(str(control_plane.kubeconfig))


async def apply(cluster: Cluster, text: str, namespace: str) -> None:
    await asyncio.to_thread(cluster.apply, text, namespace)


async def kubectl(cluster: Cluster, *words: str) -> str:
    return await asyncio.to_thread(cluster.kubectl, *words)


async def established(cluster: Cluster, name: str) -> None:
    """Until a definition is served; `kubectl wait` fails where it has no conditions yet."""

    def is_served() -> bool:
        found = cluster.get("crd", name).get("status", {}).get("conditions") or ()
        return ("Established", "True") in [(item["type"], item["status"]) for item in found]

    await asyncio.to_thread(eventually, is_served)


async def test_what_is_there_and_what_comes_changes_and_goes(
    control_plane: Cluster, namespace: str, way: Kubeconfig
) -> None:
    await apply(control_plane, config_map("first"), namespace)
    async with watching(way, Interest(ConfigMap, namespace)) as watched:
        assert "first" in watched.names(ConfigMap, namespace)
        await apply(control_plane, config_map("second"), namespace)
        await watched.until(lambda: "second" in watched.names(ConfigMap, namespace))
        await apply(control_plane, config_map("first", "changed"), namespace)

        def value() -> str:
            found = watched.store.get(ConfigMap, namespace, "first")
            return found.data["ca.crt"] if found is not None else ""

        await watched.until(lambda: value() == "changed")
        await kubectl(control_plane, "delete", "configmap", "first", "-n", namespace)
        await watched.until(lambda: "first" not in watched.names(ConfigMap, namespace))
        assert watched.source.problems == ()


async def test_only_what_is_needed_of_an_object_is_kept(
    control_plane: Cluster, namespace: str, way: Kubeconfig
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mixed"},
        "stringData": {"ca.crt": "kept", "password": "dropped"},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "labels": {"app": "vllm"}},
        "spec": {
            "containers": [
                {
                    "name": "vllm",
                    "image": "vllm",
                    "env": [{"name": "HF_TOKEN", "value": "dropped"}],
                    "ports": [{"name": "http", "containerPort": 8000}],
                }
            ]
        },
    }
    await apply(control_plane, yaml.safe_dump_all([secret, pod]), namespace)
    interests = (Interest(Secret, namespace), Interest(Pod, namespace))
    async with watching(way, *interests) as watched:
        found = watched.store.get(Secret, namespace, "mixed")
        assert found is not None
        assert set(found.data) == {"ca.crt"}
        server = watched.store.get(Pod, namespace, "server")
        assert server is not None
        assert server.spec is not None
        assert "dropped" not in repr(server.to_dict())
        assert server.spec.containers[0].ports[0].container_port == 8000
        for item in (found, server):
            assert all("last-applied" not in name for name in item.metadata.annotations)


async def test_secrets_of_types_that_nobody_needs_are_not_even_asked_for(
    control_plane: Cluster, namespace: str, way: Kubeconfig
) -> None:
    """The API server narrows them: releases of helm have a megabyte each."""
    made = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": kind,
            "metadata": {"name": name},
            "stringData": {"ca.crt": "x"},
        }
        for name, kind in (("release", "helm.sh/release.v1"), ("plain", "Opaque"))
    ]
    await apply(control_plane, yaml.safe_dump_all(made), namespace)
    async with watching(way, Interest(Secret, namespace, fields=SECRETS)) as watched:
        assert watched.names(Secret, namespace) == {"plain"}


@pytest.mark.usefixtures("crds")
async def test_both_generations_of_a_pool_are_read(
    control_plane: Cluster, namespace: str, way: Kubeconfig
) -> None:
    await apply(control_plane, POOLS, namespace)
    interests = (Interest(InferencePool, namespace), Interest(InferencePoolV1Alpha2, namespace))
    async with watching(way, *interests) as watched:
        assert watched.names(InferencePool, namespace) == {"new"}
        assert watched.names(InferencePoolV1Alpha2, namespace) == {"old"}


@pytest.mark.usefixtures("crds")
async def test_labels_narrow_what_is_watched(
    control_plane: Cluster, namespace: str, way: Kubeconfig
) -> None:
    await apply(control_plane, config_map("plain"), namespace)
    labelled = yaml.safe_load(config_map("mine"))
    labelled["metadata"]["labels"] = {"team": "a"}
    await apply(control_plane, yaml.safe_dump(labelled), namespace)
    async with watching(way, Interest(ConfigMap, namespace, "team=a")) as watched:
        assert watched.names(ConfigMap, namespace) == {"mine"}
        await kubectl(control_plane, "label", "cm", "plain", "team=a", "-n", namespace)
        await watched.until(lambda: watched.names(ConfigMap, namespace) == {"mine", "plain"})
        await kubectl(control_plane, "label", "cm", "mine", "team-", "-n", namespace)
        await watched.until(lambda: watched.names(ConfigMap, namespace) == {"plain"})


@pytest.fixture
def bare() -> Iterator[Cluster]:
    """A cluster of the test's own, with no kinds but Kubernetes' own."""
    from tests.kubernetes import binaries
    from tests.kubernetes.conftest import absent

    absent(binaries.missing())
    absent("" if SHARED_CRDS.is_dir() else f"no {SHARED_CRDS}, where the CRDs of others are")
    with Cluster() as made:
        yield made


async def test_a_kind_that_is_installed_later_is_taken_up_and_leaves_with_its_objects(
    bare: Cluster,
) -> None:
    way = Kubeconfig(str(bare.kubeconfig))
    interests = (Interest(CustomResourceDefinition), Interest(HTTPRoute), Interest(ConfigMap))
    definition = SHARED_CRDS / "gateway-api" / "gateway.networking.k8s.io_httproutes.yaml"
    async with watching(way, *interests) as watched:
        assert watched.source.version(HTTPRoute) is None
        await kubectl(bare, "apply", "--server-side", "-f", str(definition))
        await established(bare, "httproutes.gateway.networking.k8s.io")
        await apply(bare, ROUTE.replace("NAME", "late"), "default")
        await watched.until(lambda: watched.names(HTTPRoute, "default") == {"late"})
        assert watched.source.version(HTTPRoute) == "v1"
        await kubectl(bare, "delete", "-f", str(definition))
        await watched.until(lambda: watched.names(HTTPRoute, "default") == set())
        await watched.until(lambda: watched.source.version(HTTPRoute) is None)


async def test_an_outage_changes_nothing_and_what_happened_meanwhile_is_heard(
    bare: Cluster,
) -> None:
    way = Kubeconfig(str(bare.kubeconfig))
    await apply(bare, config_map("before"), "default")
    async with watching(way, Interest(ConfigMap, "default")) as watched:
        revision = watched.store.revision
        await asyncio.to_thread(bare.stop_apiserver)
        await watched.until(lambda: watched.source.complaints)
        assert "before" in watched.names(ConfigMap, "default")
        assert watched.store.revision == revision
        await asyncio.to_thread(bare.start_apiserver)
        await apply(bare, config_map("after"), "default")
        await watched.until(lambda: "after" in watched.names(ConfigMap, "default"))
        await watched.until(lambda: not watched.source.complaints)
        assert "before" in watched.names(ConfigMap, "default")


@asynccontextmanager
async def watching_through(
    cluster: Cluster, folder: Path, *interests: Interest
) -> AsyncIterator[tuple[FaultyServer, Watched]]:
    async with faulty(cluster.kubeconfig) as server:
        way = Kubeconfig(str(server.kubeconfig(folder)))
        async with watching(way, *interests) as watched:
            yield server, watched


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch") == "true"


async def test_a_watch_from_too_long_ago_lists_anew(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    """The API server says 410 in an event of the watch, or as the answer to it."""
    await apply(control_plane, config_map("first"), namespace)

    def expired() -> web.Response:
        event = {
            "type": "ERROR",
            "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
        }
        return web.json_response(event)

    async with faulty(control_plane.kubeconfig) as server:
        server.faults = [
            times(1, is_watch, expired),
            times(1, is_watch, lambda: status(410, "Gone")),
        ]
        way = Kubeconfig(str(server.kubeconfig(tmp_path)))
        async with watching(way, Interest(ConfigMap, namespace)) as watched:
            await apply(control_plane, config_map("second"), namespace)
            await watched.until(lambda: {"first", "second"} <= watched.names(ConfigMap, namespace))
            path = f"/api/v1/namespaces/{namespace}/configmaps"

            def lists() -> list[str]:
                return [seen for _, seen in server.seen if path in seen and "watch" not in seen]

            await watched.until(lambda: len(lists()) >= 3)


async def test_throttling_and_errors_are_waited_for(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    await apply(control_plane, config_map("first"), namespace)

    def throttled() -> web.Response:
        answer = status(429, "TooManyRequests")
        answer.headers["retry-after"] = "1"
        return answer

    def is_list(request: web.Request) -> bool:
        return "configmaps" in request.path and not is_watch(request)

    async with faulty(control_plane.kubeconfig) as server:
        server.faults = [
            times(1, is_list, throttled),
            times(1, is_list, lambda: status(500, "InternalError")),
            times(1, is_watch, lambda: status(503, "ServiceUnavailable")),
        ]
        way = Kubeconfig(str(server.kubeconfig(tmp_path)))
        async with watching(way, Interest(ConfigMap, namespace)) as watched:
            assert "first" in watched.names(ConfigMap, namespace)
            await apply(control_plane, config_map("second"), namespace)
            await watched.until(lambda: "second" in watched.names(ConfigMap, namespace))


@pytest.mark.parametrize("fault", [KeyError("oh"), asyncio.CancelledError()])
async def test_a_fault_of_ours_leaves_no_kind_unheard(
    control_plane: Cluster,
    namespace: str,
    way: Kubeconfig,
    fault: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults = [fault]
    monkeypatch.setattr(source, "CATALOGUE_INTERVAL_S", 2 * LIMIT_S)

    def faulty_pruned(cls: type[Resource], data: dict[str, Any]) -> dict[str, Any]:
        if faults:
            raise faults.pop()
        return pruned(cls, data)

    async with watching(way, Interest(ConfigMap, namespace)) as watched:
        monkeypatch.setattr(reflector, "pruned", faulty_pruned)
        await apply(control_plane, config_map("first"), namespace)
        await watched.until(lambda: "first" in watched.names(ConfigMap, namespace))
        assert not faults
        await apply(control_plane, config_map("second"), namespace)
        await watched.until(lambda: "second" in watched.names(ConfigMap, namespace))


async def test_a_long_list_comes_in_pages(
    control_plane: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointsman.sources.kubernetes.reflector.LARGE_PAGE", 7)
    made = "---\n".join(config_map(f"item-{number}") for number in range(30))
    await apply(control_plane, made, namespace)
    async with watching_through(control_plane, tmp_path, Interest(ConfigMap, namespace)) as (
        server,
        watched,
    ):
        assert len(watched.names(ConfigMap, namespace)) >= 30
        pages = [query for _, query in server.seen if "continue=" in query]
        assert len(pages) >= 4


async def test_what_we_have_no_right_to_is_told_and_holds_nothing_up(
    control_plane: Cluster, namespace: str
) -> None:
    await kubectl(control_plane, "create", "sa", "reader", "-n", namespace)
    role = ("create", "role", "reader", "--verb=get,list,watch", "--resource=configmaps")
    await kubectl(control_plane, *role, "-n", namespace)
    binding = ("create", "rolebinding", "reader", "--role=reader")
    account = f"--serviceaccount={namespace}:reader"
    await kubectl(control_plane, *binding, account, "-n", namespace)
    await apply(control_plane, config_map("first"), namespace)
    kubeconfig = await asyncio.to_thread(control_plane.kubeconfig_for, "reader", namespace)
    interests = (Interest(ConfigMap, namespace), Interest(Secret, namespace))
    async with watching(Kubeconfig(str(kubeconfig)), *interests) as watched:
        assert "first" in watched.names(ConfigMap, namespace)
        (complaint,) = watched.source.complaints
        assert "secrets" in complaint
        assert "403" in complaint


async def test_an_object_that_cannot_be_read_keeps_its_last_good_state(
    bare: Cluster,
) -> None:
    """A definition that takes more than ours: what we cannot read is told, the rest goes on."""
    loose = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }
    await apply(bare, yaml.safe_dump(loose), "default")
    await established(bare, "httproutes.gateway.networking.k8s.io")
    await apply(bare, ROUTE.replace("NAME", "good"), "default")
    await apply(bare, ROUTE.replace("NAME", "turns-bad"), "default")
    way = Kubeconfig(str(bare.kubeconfig))
    async with watching(way, Interest(HTTPRoute)) as watched:
        bad = ROUTE.replace("NAME", "turns-bad").replace("[{name: front}]", "nonsense")
        await apply(bare, bad, "default")
        await watched.until(lambda: watched.source.problems)
        (problem,) = watched.source.problems
        assert problem.subject == "HTTPRoute default/turns-bad"
        assert problem.field == "spec.parentRefs"
        assert watched.names(HTTPRoute, "default") == {"good", "turns-bad"}
        await apply(bare, ROUTE.replace("NAME", "turns-bad"), "default")
        await watched.until(lambda: not watched.source.problems)


# How the API server is reached, and as whom.


def edited(kubeconfig: Path, folder: Path, **user: Any) -> Path:
    """The kubeconfig with another user, by whom nothing is known yet."""
    content = loaded(kubeconfig)
    content["users"] = [{"name": content["users"][0]["name"], "user": user}]
    path = folder / "edited.kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


def loaded(kubeconfig: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    return content


def token_of(kubeconfig: Path) -> str:
    user = loaded(kubeconfig)["users"][0]["user"]
    return str(user["token"])


@pytest.fixture
def account(control_plane: Cluster, namespace: str) -> Path:
    """The kubeconfig of a service account that may read its namespace."""
    control_plane.kubectl("create", "sa", "viewer", "-n", namespace)
    control_plane.kubectl(
        "create",
        "rolebinding",
        "viewer",
        "--clusterrole=view",
        f"--serviceaccount={namespace}:viewer",
        "-n",
        namespace,
    )
    return control_plane.kubeconfig_for("viewer", namespace)


async def reads(way: Access, namespace: str) -> bool:
    """Whether the API server answers; raises what it says where it does not."""
    async with Api(way) as api:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        return bool([version async for _, version in api.pages(path)])


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_command_gives_credentials_and_gives_new_ones_when_they_are_refused(
    control_plane: Cluster, namespace: str, account: Path, tmp_path: Path, version: str
) -> None:
    tokens = tmp_path / "token"
    tokens.write_text("expired")
    script = tmp_path / "credentials"
    script.write_text(
        "#!/bin/sh\n"
        f'printf \'{{"apiVersion":"client.authentication.k8s.io/{version}",'
        f'"kind":"ExecCredential","status":{{"token":"%s"}}}}\' "$(cat {tokens})"\n'
    )
    script.chmod(0o755)
    command = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": str(script),
        "interactiveMode": "Never",
    }
    kubeconfig = edited(control_plane.kubeconfig, tmp_path, exec=command)
    way = Kubeconfig(str(kubeconfig))
    with pytest.raises(ApiError, match="401"):
        await reads(way, namespace)
    tokens.write_text(token_of(account))
    assert await reads(way, namespace)


async def test_a_command_runs_once_for_all_who_wait_for_its_credentials(
    control_plane: Cluster, tmp_path: Path
) -> None:
    """Each kind that is watched wants them at the start, and again when they are refused."""
    runs = tmp_path / "runs"
    script = tmp_path / "credentials"
    script.write_text(
        f"#!/bin/sh\necho run >> {runs}\nsleep 0.2\n"
        'echo \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        '"status":{"token":"secret"}}\'\n'
    )
    script.chmod(0o755)
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(script),
        "interactiveMode": "Never",
    }
    way = Kubeconfig(str(edited(control_plane.kubeconfig, tmp_path, exec=command)))
    for renew, count in ((False, 1), (False, 1), (True, 2)):
        found = await asyncio.gather(*(way.connection(renew=renew) for _ in range(20)))
        assert {each.authorization for each in found} == {"Bearer secret"}
        assert len(runs.read_text().splitlines()) == count


async def test_a_command_that_fails_is_told(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    script = tmp_path / "credentials"
    script.write_text("#!/bin/sh\necho 'please log in' >&2; exit 3\n")
    script.chmod(0o755)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}
    way = Kubeconfig(str(edited(control_plane.kubeconfig, tmp_path, exec=command)))
    with pytest.raises(ApiError, match="please log in"):
        await reads(way, namespace)


async def test_contexts_and_several_files(
    control_plane: Cluster, namespace: str, account: Path, tmp_path: Path
) -> None:
    content = loaded(account)
    context = content["contexts"][0]
    content["contexts"] = [
        {"name": "mine", "context": {**context["context"], "namespace": namespace}}
    ]
    content["current-context"] = ""
    second = tmp_path / "second.kubeconfig"
    second.write_text(yaml.safe_dump(content))
    # Users and clusters of one name count in the first file that has them.
    both = os.pathsep.join([str(second), str(control_plane.kubeconfig)])
    way = Kubeconfig(both, "mine")
    assert await reads(way, namespace)
    assert way.namespace == namespace
    with pytest.raises(AccessError, match="no context 'other'"):
        await Kubeconfig(both, "other").connection()


async def test_a_proxy_stands_between(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(request.split()[1])
        host, port = asked[-1].split(":")
        inner = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        content = loaded(control_plane.kubeconfig)
        content["clusters"][0]["cluster"]["proxy-url"] = f"http://127.0.0.1:{port}"
        path = tmp_path / "proxied.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        assert await reads(Kubeconfig(str(path)), namespace)
    assert set(asked) == {control_plane.server.removeprefix("https://")}


async def test_the_name_in_the_certificate_may_be_another(
    control_plane: Cluster, namespace: str, tmp_path: Path
) -> None:
    content = loaded(control_plane.kubeconfig)
    path = tmp_path / "named.kubeconfig"
    for name, is_right in (("kubernetes.default.svc", True), ("elsewhere.example", False)):
        content["clusters"][0]["cluster"]["tls-server-name"] = name
        path.write_text(yaml.safe_dump(content))
        if is_right:
            assert await reads(Kubeconfig(str(path)), namespace)
        else:
            with pytest.raises(ApiError, match="certificate"):
                await reads(Kubeconfig(str(path)), namespace)


async def test_a_pod_takes_up_the_token_that_the_kubelet_renews(
    control_plane: Cluster, namespace: str, account: Path, tmp_path: Path
) -> None:
    cluster = loaded(account)["clusters"][0]["cluster"]
    (tmp_path / "ca.crt").write_bytes(authority_of(cluster, account))
    (tmp_path / "namespace").write_text(namespace)
    (tmp_path / "token").write_text("expired")
    host, port = control_plane.server.removeprefix("https://").split(":")
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    way = InCluster(tmp_path, environment)
    assert way.namespace == namespace
    with pytest.raises(ApiError, match="401"):
        await reads(way, namespace)
    (tmp_path / "token").write_text(token_of(account))
    assert await reads(way, namespace)


def authority_of(cluster: dict[str, Any], kubeconfig: Path) -> bytes:
    import base64

    if "certificate-authority-data" in cluster:
        return base64.b64decode(str(cluster["certificate-authority-data"]))
    return (kubeconfig.parent / str(cluster["certificate-authority"])).read_bytes()


def test_without_a_cluster_it_is_said_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(AccessError, match=r"no kubeconfig .*none; use --kubeconfig or KUBECONFIG"):
        access()
    with pytest.raises(AccessError, match="KUBERNETES_SERVICE_HOST"):
        InCluster(tmp_path, {})
