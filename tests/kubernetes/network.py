"""The addresses of a cluster for tests, which are the same in each: their network is private."""

from __future__ import annotations

SERVICE_RANGE = "10.96.0.0/24"
API_ADDRESS = "10.96.0.1"
"""The Service `kubernetes`: the API server gives itself the first address of the range."""
CLUSTER_DOMAIN = "cluster.local"
