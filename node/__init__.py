"""The node: listens, decides, runs the pipeline, delivers; the one place where settings meet objects.

It may import everything of ours; nothing of ours imports it.
"""
