"""The objects users write, as typed models: parsing, defaults, validation, conversion. No I/O."""
