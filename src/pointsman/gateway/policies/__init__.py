"""What users attach to Gateways and routes to change them."""
