"""TLS that a Backend declares itself (`spec.tls`).

It is written like a BackendTLSPolicy for the Backend, which goes before it. The name that is asked
for is `sni`, or that of the first server; servers by address have none unless `sni` gives one, and
then only who signed their certificate counts. Where the authorities cannot be read the servers are
not spoken to: what was to be private is not sent in the clear.
"""

from __future__ import annotations

from pointsman.gateway.backends.authorities import KEY, KINDS, bundle
from pointsman.gateway.backends.upstream_tls import UpstreamTLS
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import Backend, BackendTLS
from pointsman.store import Store

WSS = "gateway.envoyproxy.io/wss"
UNUSED = (
    "client_certificate_ref",
    "min_version",
    "max_version",
    "ciphers",
    "ecdh_curves",
    "signature_algorithms",
    "alpn_protocols",
)


def declared_tls(
    store: Store, backend: Backend, authorities_path: str
) -> tuple[UpstreamTLS | None, str | None]:
    """How a Backend says that it is spoken to by TLS, and what is wrong with that."""
    spec = backend.spec.tls
    if spec is None:
        return None, None
    name = spec.sni or next(
        (item.fqdn.hostname for item in backend.spec.endpoints if item.fqdn is not None), ""
    )
    if spec.insecure_skip_verify:
        return UpstreamTLS(backend.ref, name, trusts_anybody=True), None
    if spec.well_known_ca_certificates is not None:
        problem = None if authorities_path else "tls: there is no file with the well-known ones"
        tls = UpstreamTLS(
            backend.ref, name, authorities_path=authorities_path, is_broken=problem is not None
        )
        return tls, problem
    found, problems = [], []
    for item in spec.ca_certificate_refs:
        ref = Ref(item.group, item.kind, backend.metadata.namespace, item.name)
        content = bundle(store, ref) if (ref.group, ref.kind) in KINDS else None
        if content is None:
            what = f"{ref} is not there, or holds no certificate in PEM under {KEY}"
            problems.append(f"tls.caCertificateRefs: {what}")
        else:
            found.append(content)
    tls = UpstreamTLS(backend.ref, name, b"".join(found), is_broken=not found)
    return tls, "; ".join(problems) or None


def warnings(backend: Backend, *, has_policy: bool) -> list[str]:
    """What a Backend says of TLS and means nothing."""
    spec = backend.spec.tls
    unused = [
        f"tls.{BackendTLS.model_fields[name].alias or name}"
        for name in UNUSED
        if spec is not None and getattr(spec, name)
    ]
    result = [f"Fields that have no effect: {', '.join(unused)}"] if unused else []
    if WSS in backend.spec.app_protocols and spec is None and not has_policy:
        result.append(f"{WSS} needs tls, or a BackendTLSPolicy; its servers are spoken to in clear")
    return result
