"""From selections to tables: which bytes to fetch, what to decode, where each element goes.

Pure: no I/O, no device. `planner.build_plan` is the entry.
"""
