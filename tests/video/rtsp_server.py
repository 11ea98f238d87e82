"""Serve a test picture at rtsp://me:secret@127.0.0.1:PORT/live and print PORT.

Run by the system's Python with GStreamer's server: Debian's gir1.2-gst-rtsp-server-1.0.
"""

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory.new()
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=128,height=96,framerate=25/1 "
    "! x264enc tune=zerolatency key-int-max=10 ! rtph264pay name=pay0 pt=96 )"
)
users = GstRtspServer.RTSPAuth.new()
token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "user")
users.add_basic(GstRtspServer.RTSPAuth.make_basic("me", "secret"), token)
server.set_auth(users)
role = Gst.Structure.new_empty("user")
role.set_value("media.factory.access", True)
role.set_value("media.factory.construct", True)
factory.add_role_from_structure(role)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
