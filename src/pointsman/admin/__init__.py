"""The admin socket: what a running instance tells, and how commands ask it."""
