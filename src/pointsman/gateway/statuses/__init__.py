"""What is so about each object, in conditions."""
