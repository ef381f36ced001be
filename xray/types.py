"""Types that several parts of `xray` share."""

from typing import Literal

Label = Literal["normal", "abnormal"]
LABELS: tuple[Label, Label] = ("normal", "abnormal")
"""Names of the training targets 0 and 1."""
