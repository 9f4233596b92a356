"""Evaluation: predictions against truth, for every structure, side and group, in the formulas of the field."""
