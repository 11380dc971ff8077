"""Where requests come in: Gateways, their listeners, what attaches to them, TLS."""
