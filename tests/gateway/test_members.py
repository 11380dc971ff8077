"""An index of pods that follows the one before it is what a new one would be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pointsman.gateway.backends.members import Members
from pointsman.resources.base import Ref
from pointsman.resources.core import Pod
from pointsman.resources.parse import parse_text
from pointsman.store import Store

NAMES = ("a", "b", "c", "d")
NAMESPACES = ("one", "two")
APPS = ("x", "y")
ADDRESSES = ("", "10.0.0.1", "10.0.0.2", "nowhere")
SELECTORS: tuple[dict[str, str], ...] = ({}, {"app": "x"}, {"app": "x", "tier": "y"}, {"no": "one"})


def pod(name: str, namespace: str, app: str, tier: str, address: str) -> Pod:
    text = f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}, tier: {tier}}}}}
status: {{podIP: "{address}", conditions: [{{type: Ready, status: "True"}}]}}
"""
    (parsed,) = parse_text(text, "-")
    assert isinstance(parsed.resource, Pod)
    return parsed.resource


pods = st.builds(pod, *map(st.sampled_from, (NAMES, NAMESPACES, APPS, APPS, ADDRESSES)))
gone = st.builds(
    lambda name, namespace: Ref("", "Pod", namespace, name),
    *map(st.sampled_from, (NAMES, NAMESPACES)),
)


@given(st.lists(st.tuples(st.lists(pods, max_size=5), st.lists(gone, max_size=3)), max_size=5))
def test_what_follows_is_as_a_new_one(batches: list[tuple[list[Pod], list[Ref]]]) -> None:
    store = Store()
    members = Members(store)
    for come, left in batches:
        store.apply(come, left)
        members = Members(store, members)
        new = Members(store)
        for namespace in NAMESPACES:
            for labels in SELECTORS:
                found = members.ready_pods(namespace, labels)
                assert list(found) == list(new.ready_pods(namespace, labels))
                assert [item.metadata.name for item in found] == sorted(
                    item.metadata.name for item in found
                )
        assert members.ready.keys() == new.ready.keys()
