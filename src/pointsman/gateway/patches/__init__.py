"""Users' JSON patches of the generated resources."""
