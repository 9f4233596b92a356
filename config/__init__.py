"""Every setting: its name, type, unit, default and meaning.

It imports nothing of ours.
"""
