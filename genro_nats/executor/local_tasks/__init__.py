"""Tasks of local pools, kept in the memory of this process.

::

    LocalTasks ─▶ Store    records by id, key and state; the queues; under one lock
               ─▶ Attempts runs what is due, one attempt at a time, through the pool
                  ├▶ Waiting   what is not due yet, and what comes too late
                  └▶ Settling  the last change of a task
               ─▶ Recurring schedules; each run is a task of its own
               ─▶ Clock    the event loop in which attempts and timers live
"""
