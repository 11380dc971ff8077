"""The LoRA rollout sidecar: keeps a model server's adapters as a ConfigMap's file says."""
