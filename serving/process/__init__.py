"""What belongs to a process, not to a request.

workers         several processes on one socket; restarts those that end
logs            JSON lines on stderr
off_loop        runs work of a few milliseconds off the event loop, one task at a time
malloc          makes glibc give memory back to the system
disk            whether the home has space and can be written to
"""
