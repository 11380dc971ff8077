"""Envoy's external processing protocol as an endpoint picker speaks it."""
