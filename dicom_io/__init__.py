"""From DICOM series to volumes, and from results to DICOM objects.

Only this folder knows datasets. It imports `engine` and nothing else of ours.
"""
