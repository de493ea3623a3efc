"""Synthetic micro-actions: a drawn figure on a chair performs the 52 actions of MA-52.

Not MA-52, and not a substitute for it: a data set of the same layout, label tree and long tail, on
which the whole system runs and learns without any download. `pcan synthetic --help`.
"""
