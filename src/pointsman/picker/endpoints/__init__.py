"""The model servers: which there are, what they carry, and what they say of themselves."""
