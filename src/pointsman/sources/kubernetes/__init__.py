"""Objects from a Kubernetes API server: how it is reached, what is asked of it, what is kept.

access ──▶ api ──▶ reflector (one kind: list, then watch) ──▶ source ──▶ store
           │                        ▲
           │       catalogue (which kinds are installed)
           └────▶ lease
"""
