"""The control plane's pure core: objects in, Envoy resources and conditions out. No I/O."""
