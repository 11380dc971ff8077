"""What becomes of a request: rules, matches, filters, limits, virtual hosts."""
