"""What routes lead to: references followed, and the clusters of what they found."""
