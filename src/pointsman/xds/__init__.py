"""Speaks to Envoy: the aggregated discovery service, the bootstrap, the dry run."""
