"""A camera without hardware: an RTSP server that loops real footage and can be made to fail.

    /usr/bin/python3 camera.py PORT NAME=FILE.h264 [NAME=FILE.h264 ...]

PORT 0 takes a free one. Each NAME is a stream at rtsp://127.0.0.1:PORT/NAME. FILE is H.264 as
tests/footage.sh makes it. The access units are stamped here with times of our own, 25 a second, so
that the loop has no seam and every fault can be put in.

It prints `port N` when it listens, then obeys lines on standard input and answers each with `ok`,
`port N` or `error WHY`. It ends with its standard input, or with its parent.

    freeze NAME      the same picture again and again (an encoder that hangs, a stuck sensor)
    silence NAME     the connection stays, nothing comes
    garble NAME      noise instead of pictures, in proper RTP
    resume NAME      footage again
    auth none | auth basic USER PASSWORD | auth digest USER PASSWORD
    stop             the port closes, every session ends (a camera that lost its power)
    start            the port opens again, the same one

Debian: gir1.2-gst-rtsp-server-1.0 python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-{base,good,bad}
"""

import ctypes
import os
import random
import signal
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstApp, GstRtsp, GstRtspServer  # noqa: E402,F401

FRAME = Gst.SECOND // 25
DELIMITER = b"\x00\x00\x00\x01\x09"


def access_units(path):
    """Splits Annex B at its access unit delimiters."""
    with open(path, "rb") as file:
        data = file.read()
    units = []
    at = data.find(DELIMITER)
    while at >= 0:
        end = data.find(DELIMITER, at + 5)
        units.append(data[at : end if end >= 0 else len(data)])
        at = end
    if len(units) < 25:
        raise SystemExit(f"{path}: no H.264 with access unit delimiters; make it with tests/footage.sh")
    return units


def nal_types(unit):
    at = unit.find(b"\x00\x00\x01")
    while at >= 0 and at + 3 < len(unit):
        yield unit[at + 3] & 31
        at = unit.find(b"\x00\x00\x01", at + 3)


class Footage:
    """What one camera shows, and what is wrong with it."""

    def __init__(self, units, offset):
        self.units = units
        self.keyframes = [i for i, u in enumerate(units) if 5 in nal_types(u)]
        self.offset = offset  # seconds, so that two cameras do not show the same moment
        self.mode = "resume"


class Feeder:
    """Feeds one running media, in step with the wall."""

    def __init__(self, footage, source):
        self.footage = footage
        self.source = source
        self.number = 0  # of frames since this media began: its clock
        # the next unit of the footage: goes on where a reader that was here before lost it
        seconds = GLib.get_monotonic_time() // 1_000_000 + footage.offset
        self.next = footage.keyframes[seconds // 2 % len(footage.keyframes)]
        self.timer = GLib.timeout_add(40, self.tick)
        self.began = GLib.get_monotonic_time()

    def tick(self):
        due = (GLib.get_monotonic_time() - self.began) * 25 // 1_000_000 + 1
        while self.number < due:
            unit = self.unit()
            if unit is not None and self.push(unit) != Gst.FlowReturn.OK:
                self.timer = 0
                return GLib.SOURCE_REMOVE
            self.number += 1
        return GLib.SOURCE_CONTINUE

    def unit(self):
        footage = self.footage
        if footage.mode == "silence":
            return None
        if footage.mode == "freeze":
            # always the last keyframe, a whole picture by itself; five a second are traffic enough
            key = max((k for k in footage.keyframes if k <= self.next), default=footage.keyframes[0])
            return footage.units[key] if self.number % 5 == 0 else None
        unit = footage.units[self.next]
        self.next = (self.next + 1) % len(footage.units)
        if footage.mode == "garble":
            # the headers stay, or the session would not even be a session
            unit = unit[:40] + random.Random(self.number).randbytes(max(len(unit) - 40, 8))
        return unit

    def push(self, unit):
        buffer = Gst.Buffer.new_wrapped(unit)
        buffer.pts = buffer.dts = self.number * FRAME
        buffer.duration = FRAME
        return self.source.emit("push-buffer", buffer)

    def end(self, _media):
        if self.timer:
            GLib.source_remove(self.timer)
            self.timer = 0


class Factory(GstRtspServer.RTSPMediaFactory):
    def __init__(self, footage):
        super().__init__()
        self.footage = footage
        self.set_launch(
            "( appsrc name=source is-live=true format=time block=false max-bytes=4000000"
            " caps=video/x-h264,stream-format=byte-stream,alignment=au,framerate=25/1"
            " ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )"
        )
        self.set_shared(False)  # each viewer begins with a keyframe
        self.connect("media-configure", self.configure)

    def configure(self, _factory, media):
        source = media.get_element().get_by_name_recurse_up("source")
        # frames leave when they are fed, whatever their time says
        media.set_rate_control(False)
        feeder = Feeder(self.footage, source)
        media.connect("unprepared", feeder.end)


class Camera:
    def __init__(self, port, streams):
        self.port = port
        self.streams = streams
        self.auth = None
        self.server = None
        self.source = 0
        self.start()

    def start(self):
        if self.server is not None:
            return
        server = GstRtspServer.RTSPServer()
        server.set_address("127.0.0.1")
        server.set_service(str(self.port))
        for name, footage in self.streams.items():
            factory = Factory(footage)
            if self.auth is not None:
                self.admit(factory)
            server.get_mount_points().add_factory("/" + name, factory)
        if self.auth is not None:
            server.set_auth(self.door())
        self.source = server.attach(None)
        if self.source == 0:
            raise OSError(f"port {self.port} is taken")
        self.server = server
        self.port = server.get_bound_port()

    def stop(self):
        if self.server is None:
            return
        self.server.client_filter(lambda _server, _client: GstRtspServer.RTSPFilterResult.REMOVE)
        GLib.source_remove(self.source)
        self.server = None

    def admit(self, factory):
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)

    def door(self):
        kind, user, password = self.auth
        door = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        if kind == "basic":
            door.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
            door.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        else:
            door.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            door.add_digest(user, password, token)
        return door

    def obey(self, words):
        match words:
            case ["stop"]:
                self.stop()
            case ["start"]:
                self.start()
                return f"port {self.port}"
            case ["auth", "none"] | ["auth", "basic" | "digest", _, _]:
                was_up = self.server is not None
                self.stop()
                self.auth = tuple(words[1:]) if len(words) == 4 else None
                if was_up:
                    self.start()
            case ["freeze" | "silence" | "garble" | "resume" as mode, name] if name in self.streams:
                self.streams[name].mode = mode
            case _:
                return "error unknown command"
        return "ok"


def listen(camera, loop):
    """Reads commands in a thread of its own and has each obeyed by the main loop."""

    def obey(line):
        try:
            answer = camera.obey(line.split())
        except Exception as error:  # noqa: BLE001: the test wants to read it
            answer = f"error {error}"
        print(answer, flush=True)
        return GLib.SOURCE_REMOVE

    for line in sys.stdin:
        GLib.idle_add(obey, line)
    GLib.idle_add(loop.quit)


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    Gst.init(None)
    files = {}
    streams = {}
    for number, word in enumerate(sys.argv[2:]):
        name, _, path = word.partition("=")
        if path not in files:
            files[path] = access_units(path)
        streams[name] = Footage(files[path], number * 14)
    camera = Camera(int(sys.argv[1]), streams)
    print(f"port {camera.port}", flush=True)
    loop = GLib.MainLoop()
    threading.Thread(target=listen, args=(camera, loop), daemon=True).start()
    loop.run()
    os._exit(0)  # GStreamer's threads have nothing to save


main()
