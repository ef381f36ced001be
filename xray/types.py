"""Types that are used in several packages."""

from typing import Literal

Label = Literal["normal", "abnormal"]
LABELS: tuple[Label, Label] = ("normal", "abnormal")
"""The names of the training targets 0 and 1."""
