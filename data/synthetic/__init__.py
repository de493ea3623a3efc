"""Synthetic micro-actions: a drawn figure on a chair performs the 52 actions of MA-52.

No substitute for MA-52, but a data set with its layout, label tree and long tail, on which the
whole system runs and learns without a download. See `pcan synthetic --help`.
"""
