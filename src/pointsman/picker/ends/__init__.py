"""How requests ended, and what was learnt from them."""
