"""One supervisor of processes on several hosts; imports the standard library alone.

`supervisor` runs on the first host: it starts one process per host and watches them. `node` is for that process: it
receives what the supervisor asks for, and signals and ends the processes of its host.
"""
