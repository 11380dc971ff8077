"""The commands. Each is a thin composition root."""
