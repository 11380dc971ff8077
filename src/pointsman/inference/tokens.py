"""How many tokens a text has, estimated without a tokenizer.

One token for every four bytes of UTF-8, as the reference picker's estimator counts and as OpenAI's
rule of thumb says for English. Code and other languages differ by up to a factor of two, which is
enough to compare servers with: every server is measured with the same rule.
"""

from __future__ import annotations

BYTES_PER_TOKEN = 4

IMAGE_TOKENS = 225
"""An image whose size is not known: 640 x 360 pixels at 1,024 pixels for each token."""


def tokens_in(text_bytes: int) -> int:
    """The estimated tokens of so many bytes; at least one where there is any text.

    >>> tokens_in(0), tokens_in(1), tokens_in(8)
    (0, 1, 2)
    """
    return -(-text_bytes // BYTES_PER_TOKEN)
