"""What the node remembers: series, instances, jobs, measurements, results, deliveries.

It imports `engine` and nothing else of ours.
"""
