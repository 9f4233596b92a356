"""From a CT volume to a segmentation and its measurements: arrays and millimetres.

This folder knows no DICOM, no SQL and no settings. It imports nothing else of ours.
"""
