"""The HTTP API, one module per protocol. Handlers take a replica and a request."""
