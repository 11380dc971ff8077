"""The environment of a container, and the references to it in its command line.

Rules (Kubernetes): a variable's value may come from a field of the pod, a ConfigMap or a Secret;
`$(NAME)` in a command or argument stands for the value of a variable of the container, `$$(NAME)`
for itself, and a reference to what is not there stays as it is written.

>>> expanded("--host=$(POD_IP) $$(POD_IP) $(GONE)", {"POD_IP": "127.0.0.9"})
'--host=127.0.0.9 $(POD_IP) $(GONE)'
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pointsman.resources.core import ConfigMap, Container, EnvVar, Secret
from pointsman.store import Store

_REFERENCE = re.compile(r"\$?\$\(([-._A-Za-z0-9]+)\)")


def variables(
    container: Container, fields: Mapping[str, str], store: Store, namespace: str
) -> dict[str, str]:
    """The container's variables; one whose source is not there is left out.

    `fields` are those of the pod that can be referred to, like `status.podIP`.
    """
    result: dict[str, str] = {}
    for item in container.env:
        value = _value(item, fields, store, namespace)
        if value is not None:
            result[item.name] = expanded(value, result)
    return result


def with_references(container: Container, values: Mapping[str, str]) -> Container:
    """The container with the references in its command line followed."""
    return container.model_copy(
        update={
            "command": tuple(expanded(part, values) for part in container.command),
            "args": tuple(expanded(part, values) for part in container.args),
        }
    )


def expanded(text: str, values: Mapping[str, str]) -> str:
    """`text` with its references followed."""

    def follow(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        return values.get(match[1], match[0])

    return _REFERENCE.sub(follow, text)


def _value(item: EnvVar, fields: Mapping[str, str], store: Store, namespace: str) -> str | None:
    source = item.value_from
    if source is None:
        return item.value
    if source.field_ref is not None:
        return fields.get(source.field_ref.field_path)
    if source.config_map_key_ref is not None:
        found = store.get(ConfigMap, namespace, source.config_map_key_ref.name)
        return found.data.get(source.config_map_key_ref.key) if found is not None else None
    if source.secret_key_ref is not None:
        secret = store.get(Secret, namespace, source.secret_key_ref.name)
        content = secret.value(source.secret_key_ref.key) if secret is not None else None
        return content.decode(errors="replace") if content is not None else None
    return None
