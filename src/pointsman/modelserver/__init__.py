"""A model server without a GPU: vLLM's HTTP API and metrics over a model of its engine."""
