"""What a picker is told: its flags in every form, its environment, and what they come to."""
