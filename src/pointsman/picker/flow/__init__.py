"""Whether a request may pass now: saturation (and, later, queues and fairness)."""
