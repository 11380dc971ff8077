"""Which server probably still holds the beginning of a prompt in its KV cache."""
