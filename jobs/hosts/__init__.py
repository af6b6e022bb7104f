"""One supervisor of processes on several hosts; imports the standard library alone.

`supervisor` runs on the first host: it starts one process per host and watches them. `processes` is for that process:
what the supervisor asks of its host, and how the processes there are signalled and ended.
"""
