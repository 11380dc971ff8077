"""`pointsman run`: what a user sees of an instance, from its ready line to its end."""

from __future__ import annotations

import itertools
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pointsman.cli.run import example_path
from tests.e2e.instances import Instance, eventually, processes_with, running, unix_json
from tests.manifests import switched_on
from tests.ports import free_port

EXAMPLE = Path(example_path())

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manifests") / "example"
    shutil.copytree(EXAMPLE, path)
    return path


@pytest.fixture(scope="module")
def example(folder: Path) -> Iterator[Instance]:
    with running(folder, ports=(8080,)) as instance:
        yield instance


def conditions(instance: Instance, kind: str, name: str) -> dict[str, dict[str, str]]:
    status = instance.object(kind, name).get("status", {})
    return {item["type"]: item for item in status.get("conditions", [])}


def test_without_a_path_the_example_runs_and_the_ready_line_says_what_to_try() -> None:
    with running(ports=(8080,)) as instance:
        line = next(line for line in instance.lines if "pointsman: ready" in line)
        assert f"http://127.0.0.1:{instance.ports[8080]}" in line
        assert f"admin unix:{instance.folder}/admin.sock" in line
        assert "curl" in line
        assert '"model": "support"' in line
        answer = instance.complete(8080, "support")
        assert answer.status == 200
        assert answer.json["model"] in ("support-v1", "support-v2")


def test_manifests_can_come_from_standard_input() -> None:
    text = "\n---\n".join(path.read_text() for path in sorted(EXAMPLE.glob("*.yaml")))
    with running("-", ports=(8080,), stdin=text) as instance:
        assert instance.complete(8080, "support").status == 200


def test_a_model_that_nobody_serves_is_a_json_404(example: Instance) -> None:
    answer = example.complete(8080, "nobody")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


def test_a_body_that_no_picker_could_read_is_a_json_413(example: Instance) -> None:
    answer = example.request(8080, "POST", "/v1/completions", b"0" * (51 * 1024 * 1024))
    assert (answer.status, answer.json["error"]["code"]) == (413, "request_too_large")


def test_requests_spread_over_the_model_servers_and_status_shows_them(example: Instance) -> None:
    assert {example.complete(8080, "support").status for _ in range(12)} == {200}
    status = example.cli("status")
    rows = [line for line in status.splitlines() if line.startswith("default/llama ")]
    assert len(rows) == 3
    assert all(" yes " in row for row in rows)


def test_a_change_of_a_file_is_applied_and_logged_by_object(
    example: Instance, folder: Path
) -> None:
    path = folder / "pool.yaml"
    before = path.read_text()
    path.write_text(before.replace("modelName: llama", "modelName: renamed"))
    # The name of a model cannot change: the old object stays, and the file is to blame.
    eventually(lambda: example.said("pool.yaml") and example.said("spec.modelName"), 5)
    assert example.complete(8080, "llama").status == 200
    path.write_text(before.replace("weight: 90", "weight: 80"))
    eventually(lambda: example.said("~ InferenceModel default/support"), 5)
    path.write_text(before)


def test_a_broken_file_is_reported_with_its_place_and_the_rest_stays(
    example: Instance, folder: Path
) -> None:
    path = folder / "gateway.yaml"
    before = path.read_text()
    path.write_text(before.replace("port: 8080", "port: 88888"))
    line = before.splitlines().index("      port: 8080") + 1
    eventually(lambda: example.said(f"gateway.yaml:{line}: spec.listeners[0].port"), 5)
    assert example.complete(8080, "support").status == 200
    path.write_text(before)


def test_a_new_replica_serves_and_a_removed_one_leaves(example: Instance, folder: Path) -> None:
    path = folder / "model-servers.yaml"
    before = path.read_text()
    path.write_text(before.replace("replicas: 3", "replicas: 4"))
    eventually(lambda: len(example.pids("modelserver")) == 4)
    path.write_text(before.replace("replicas: 3", "replicas: 2"))
    eventually(lambda: len(example.pids("modelserver")) == 2)
    assert {example.complete(8080, "support").status for _ in range(8)} == {200}
    path.write_text(before)
    eventually(lambda: len(example.pids("modelserver")) == 3)


def test_an_image_that_nobody_knows_is_a_condition_on_its_deployment(
    example: Instance, folder: Path
) -> None:
    text = (folder / "model-servers.yaml").read_text()
    text = text.replace("name: llama", "name: other").replace("app: llama", "app: other")
    (folder / "other.yaml").write_text(text.replace("vllm/vllm-openai:latest", "acme/thing:1"))
    eventually(lambda: example.said("+ Deployment default/other"), 5)
    found = eventually(lambda: conditions(example, "deployment", "other").get("Available"), 5)
    assert (found["status"], found["reason"]) == ("False", "UnknownImage")
    assert "acme/thing:1" in found["message"]
    assert example.complete(8080, "support").status == 200
    (folder / "other.yaml").unlink()
    eventually(lambda: example.said("- Deployment default/other"), 5)


def test_a_pod_that_cannot_be_made_is_told_and_made_once_it_can_be(
    example: Instance, folder: Path
) -> None:
    text = (folder / "model-servers.yaml").read_text()
    text = text.replace("name: llama", "name: stuck").replace("app: llama", "app: stuck")
    items = "items: [{key: a, path: " + "x" * 300 + "}]"
    volume = f"      volumes: [{{name: v, configMap: {{name: long, {items}}}}}]\n"
    config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: long}\ndata: {a: '1'}\n"
    path = folder / "stuck.yaml"
    path.write_text(f"{text.rstrip()}\n{volume}{config}")
    eventually(lambda: example.said("cannot be made"), 10)
    assert eventually(
        lambda: (
            "File name too long"
            in conditions(example, "deployment", "stuck")["Available"]["message"]
        )
    )
    assert example.complete(8080, "support").status == 200
    path.write_text(f"{text.rstrip()}\n{volume}{config}".replace("x" * 300, "short"))
    eventually(
        lambda: conditions(example, "deployment", "stuck")["Available"]["status"] == "True", 20
    )
    path.unlink()
    eventually(lambda: example.said("- Deployment default/stuck"), 5)


def test_an_unknown_field_is_a_warning_with_its_line_and_an_error_in_validate(
    example: Instance, folder: Path
) -> None:
    path = folder / "extra.yaml"
    path.write_text(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n"
        "metadata: {name: extra}\nspec:\n  controllerName: example.com/x\n  colour: red\n"
    )
    eventually(lambda: example.said("extra.yaml:6: warning: spec.colour"), 5)
    assert conditions(example, "gc", "extra")["Accepted"]["status"] == "True"
    assert "extra.yaml:6: spec.colour" in example.cli("validate", str(path), fails=True)
    path.unlink()


def test_a_refusal_of_envoy_is_a_condition_on_the_policy_that_caused_it(
    example: Instance, folder: Path
) -> None:
    (folder / "patch.yaml").write_text(PATCH)

    def programmed() -> dict[str, str]:
        policy = example.object("envoypatchpolicy", "bad")
        found = policy.get("status", {}).get("ancestors", [{}])[0].get("conditions", [])
        return {item["type"]: item["status"] + " " + item["message"] for item in found}

    eventually(lambda: example.said("+ EnvoyPatchPolicy default/bad"), 5)
    eventually(lambda: programmed().get("Programmed", "").startswith("False"), 10)
    assert "default/llm/http" in programmed()["Programmed"]
    assert example.complete(8080, "support").status == 200
    # The patch is left out then, and Envoy has nothing to refuse any more.
    eventually(lambda: "jsonPatches[0] on default/llm/http" in programmed()["Programmed"], 20)
    eventually(lambda: "NACKED" not in example.cli("status"), 10)
    assert "StatPrefix" in programmed()["Programmed"]
    (folder / "patch.yaml").unlink()


def test_a_bad_patch_costs_itself_alone_from_the_first_moment(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    policy = list(yaml.safe_load_all(PATCH))
    bad = policy[1]["spec"]["jsonPatches"][0]
    for field, value in (("server_name", "patched"), ("server_header_transformation", "OVERWRITE")):
        operation = {"op": "add", "path": f"{CONNECTION_MANAGER}/{field}", "value": value}
        policy[1]["spec"]["jsonPatches"].append({**bad, "operation": operation})
    (folder / "patch.yaml").write_text(yaml.safe_dump_all(policy))
    with running(folder, ports=(8080,)) as instance:
        assert instance.complete(8080, "support").status == 200
        missing = instance.request(8080, "GET", "/nothing/there")
        assert missing.headers.get("server") == "patched"
        told = instance.object("envoypatchpolicy", "bad")["status"]["ancestors"][0]["conditions"]
        (programmed,) = (item for item in told if item["type"] == "Programmed")
        assert programmed["status"] == "False"
        assert programmed["message"].startswith("jsonPatches[0] on default/llm/http: Envoy refuses")


def test_a_port_that_is_taken_is_a_condition_and_the_other_listener_lives(
    tmp_path: Path,
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "m")
    path = tmp_path / "m" / "gateway.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        second = f"    - name: second\n      protocol: HTTP\n      port: {port}\n"
        text = path.read_text().replace("      port: 8080\n", f"      port: 8080\n{second}")
        path.write_text(text)
        with running(tmp_path / "m", ports=(8080,)) as instance:
            gateway = instance.object("gateway", "llm")
            listeners = {item["name"]: item for item in gateway["status"]["listeners"]}
            accepted = {item["type"]: item for item in listeners["second"]["conditions"]}
            assert accepted["Accepted"]["reason"] == "PortUnavailable"
            assert "Address already in use" in accepted["Accepted"]["message"]
            assert instance.complete(8080, "support").status == 200
            taken.close()
            # What was in the way is gone: it heals by itself.
            eventually(lambda: _answers(instance, port), 20)


def _answers(instance: Instance, port: int) -> bool:
    try:
        return instance.complete(port, "support").status == 200
    except OSError:
        return False


def test_two_instances_run_side_by_side() -> None:
    with running(ports=(8080,)) as one, running(ports=(8080,)) as other:
        assert one.complete(8080, "support").status == 200
        assert other.complete(8080, "support").status == 200


def test_instances_of_one_user_are_told_apart_by_name(tmp_path: Path) -> None:
    with running(ports=(8080,), arguments=("--instance", "one")) as one:
        assert one.cli("get", "gtw", "llm", "-o", "name", "--instance", "one").strip()
        assert "two" in one.cli("get", "gtw", "--instance", "two", fails=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_process_and_no_file(number: signal.Signals) -> None:
    with running(ports=(8080,)) as instance:
        base_id = int((instance.folder / "envoy-base-id").read_text())
        assert len(instance.pids()) == 5
        instance.stop(number)
        assert instance.process.returncode == 0
        assert processes_with(str(instance.runtime)) == {}
        assert list((instance.runtime).rglob("*.sock")) == []
        assert not Path(f"/dev/shm/envoy_shared_memory_{base_id * 10}").exists()


def test_a_running_answer_is_finished_before_the_end() -> None:
    with running(ports=(8080,)) as instance:
        body = {"model": "llama", "prompt": "x", "max_tokens": 400, "stream": True}
        with socket.create_connection(("127.0.0.1", instance.ports[8080])) as client:
            content = str(body).replace("'", '"').replace("True", "true").encode()
            head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            client.sendall(head % len(content) + content)
            received = client.recv(65536)
            assert b"200 OK" in received
            instance.process.send_signal(signal.SIGTERM)
            client.settimeout(20)
            while b"data: [DONE]" not in received:
                chunk = client.recv(65536)
                assert chunk, "the answer was cut"
                received = received[-100:] + chunk
        instance.process.wait(20)


def test_no_process_is_left_when_the_parent_is_killed() -> None:
    with running(ports=(8080,)) as instance:
        assert len(instance.pids()) == 5
        instance.process.kill()
        instance.process.wait(5)
        eventually(lambda: not processes_with(str(instance.runtime)), 15)


def test_pods_that_share_one_address_work_too() -> None:
    with running(ports=(8080,), arguments=("--pod-addresses", "shared")) as instance:
        assert {instance.complete(8080, "support").status for _ in range(6)} == {200}
        rows = [row for row in instance.cli("status").splitlines() if "127.0.0.1:" in row]
        assert len(rows) >= 4


def test_a_pod_with_an_address_in_its_file_is_routed_to_and_not_started(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "m")
    (tmp_path / "m" / "model-servers.yaml").unlink()
    port = free_port()
    pod = (
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: outside\n  labels: {app: llama}\n"
        f"  annotations: {{pointsman.dev/ports: '8000={port}'}}\n"
        "status: {podIP: 127.0.0.1}\n"
    )
    (tmp_path / "m" / "pod.yaml").write_text(pod)
    with running(tmp_path / "m", ports=(8080,)) as instance:
        assert instance.pids("modelserver") == {}
        refused = instance.complete(8080, "support")
        assert refused.status == 503


def test_the_picker_learns_from_envoys_log_how_fast_a_server_reads(example: Instance) -> None:
    prompt = "a word and another " * 200
    numbers = itertools.count()

    def learnt() -> list[float]:
        for number in itertools.islice(numbers, 6):
            # No prompt begins like one before: what is cached says nothing about reading.
            text = f"{number} {prompt}"
            assert example.complete(8080, "support", prompt=text, max_tokens=1).status == 200
        rows = unix_json(example.folder / "picker-admin.sock", "/endpoints")
        return [row["prefill_tokens_per_s"] for row in rows if row["prefill_tokens_per_s"]]

    assert min(eventually(learnt)) > 0


CONNECTION_MANAGER = "/default_filter_chain/filters/0/typed_config"
PATCH = (
    switched_on("enableEnvoyPatchPolicy")
    + """---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {name: bad}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: llm}
  type: JSONPatch
  jsonPatches:
    - type: type.googleapis.com/envoy.config.listener.v3.Listener
      name: default/llm/http
      operation:
        op: replace
        path: /default_filter_chain/filters/0/typed_config/stat_prefix
        value: ""
"""
)
