"""Words for contrast media in headers."""

from __future__ import annotations

NO_AGENT = frozenset({"", "NO", "NONE", "N", "NOT USED", "WITHOUT", "WITHOUT CONTRAST", "NO CONTRAST", "-"})
"""What is written as Contrast/Bolus Agent (0018,0010) where none was given."""
