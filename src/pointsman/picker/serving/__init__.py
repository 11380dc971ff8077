"""How a picker is spoken to: its listeners, who may read its metrics, how it leaves."""
