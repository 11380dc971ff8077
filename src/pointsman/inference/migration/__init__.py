"""What objects of an older generation become today, and what of them cannot be carried over."""
