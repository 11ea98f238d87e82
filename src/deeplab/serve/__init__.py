"""The page and an HTTP API for photos, behind limits.

``app``
    the application: :func:`~deeplab.serve.app.build_app`.
``run``
    the process around it: socket, signals, connections.
``edge``
    what every request goes through: headers, counts, log, the orderly end of refused uploads.
``body`` → ``work`` → ``answers``
    the way of one photo: read and counted, waiting for a thread, segmented and encoded.

A request names a model of a fixed list and the outputs in :data:`~deeplab.serve.answers.Output`;
no path and no address in it is ever opened, and nothing is written to a disk.
"""
