"""A foreign client reads the stand-in terminal: evidence that the stand-in speaks as devices do.

pyzk (GPL-2.0) is used as a separate program only. Not part of `make test`, for it needs PyPI:

    python3 -m venv target/pyzk && target/pyzk/bin/pip install pyzk
    cargo build -p scc-tests --bin stand-in-terminal
    target/pyzk/bin/python tests/interop/pyzk_reads_stand_in.py target/debug/stand-in-terminal
"""

import collections
import datetime
import json
import subprocess
import sys
import tempfile

from zk import ZK

EPOCH = datetime.datetime(2000, 1, 1)


def check(program, layout, key, records):
    truth = tempfile.NamedTemporaryFile(suffix=".jsonl")
    stand_in = subprocess.Popen(
        [program, "--layout", layout, "--comm-key", str(key), "--records", str(records),
         "--truth", truth.name, "--with-parent"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        host, port = stand_in.stdout.readline().split()[1].split(":")
        client = ZK(host, port=int(port), timeout=5, password=key, ommit_ping=True)
        session = client.connect()
        serial = session.get_serialnumber()
        seen = session.get_attendance()
        drift = abs((session.get_time() - datetime.datetime.utcnow()).total_seconds() - 8 * 3600)
        live = None
        # short events of internal numbers are beyond what pyzk reports; its reading of the log is not
        for event in session.live_capture(new_timeout=1) if layout != "8a" else ():
            if event is None and live is None:
                stand_in.stdin.write("punch 31337\n")
                stand_in.stdin.flush()
                live = "asked"
            elif event is not None:
                live = event.user_id
                session.end_live_capture = True
        session.disconnect()
    finally:
        stand_in.stdin.close()
        stand_in.wait(5)
    told = collections.Counter()
    for line in open(truth.name):
        line = json.loads(line)
        told[(line["user"], line["local_s"])] += 1
    got = collections.Counter(
        (str(a.user_id), int((a.timestamp - EPOCH).total_seconds())) for a in seen)
    if layout == "8a":
        live = 31337
    else:
        got[("31337", max(s for _, s in told))] += 1
    assert serial == "CGKK223862906", serial
    assert got == told, (layout, len(seen), sum(told.values()), list((got - told).items())[:3])
    assert drift < 3, drift
    assert str(live) == "31337", live
    print(f"layout {layout}, key {key}: {len(seen)} records agree, and a live event where it is reported")


if __name__ == "__main__":
    for layout, key, records in [("40", 0, 10), ("40", 1234, 5000), ("16", 99, 3000), ("8a", 0, 300)]:
        check(sys.argv[1], layout, key, records)
