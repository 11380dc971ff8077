"""What the rooms above report into: logs now, metrics and traces with the picker."""
