"""Distributions for the tests of plug-ins, and a whole one as an example."""
