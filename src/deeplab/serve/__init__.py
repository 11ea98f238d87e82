"""The page and HTTP APIs for photos, behind limits.

``plan`` → ``run``, ``processes``
    what a server is told; the process around it: socket, signals, the end; several of them.
``app``
    the application: :func:`~deeplab.serve.app.build_app`.
``edge`` → ``door``
    what every request goes through: its name, headers, counts, log; then who may come in.
``api_v1``, ``api_kserve``, ``api_huggingface``
    what the addresses are, one file for each API.
``body`` → ``service`` → ``answers``
    the way of photos: read and counted, waiting for a thread and segmented, encoded.

A request names a model of a fixed list and the outputs in :data:`~deeplab.serve.wishes.Output`;
no path and no address in it is ever opened, and nothing is written to a disk.
"""
