"""What a cluster would do, on one machine: processes, pods, Services, Envoy and the picker."""
