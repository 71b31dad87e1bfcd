"""What belongs to a process and to no request.

workers         several processes on one socket; restarts those that end
logs            JSON lines on stderr
off_loop        work of some milliseconds, off the event loop, one after the other
malloc          makes glibc give memory back to the system
disk            whether the home has room and can be written to
"""
