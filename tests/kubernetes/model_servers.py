"""Manifests of model servers without a GPU, as the pods of a pool."""

from __future__ import annotations


def model_servers(name: str, model: str) -> str:
    """A Deployment of two, called `name` and labelled `app: NAME`, that serve `model`."""
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: server
        image: pointsman
        args: [modelserver, {model}, --host, 0.0.0.0, --port, "8000"]
        ports: [{{containerPort: 8000}}]
        readinessProbe: {{httpGet: {{path: /health, port: 8000}}}}
        # As uvicorn does, it closes its connections at once: it must be out of the pool by then.
        lifecycle: {{preStop: {{sleep: {{seconds: 3}}}}}}
---
"""
