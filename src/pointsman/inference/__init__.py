"""What the gateway and the picker must agree on: names, paths, errors, estimates."""
