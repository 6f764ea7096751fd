"""memento_code.relay: in which order what a session prints and what it tells get out of its container."""

import json
import subprocess
import sys

PRINTS_AND_ENDS = """
import os
from memento_code.relay import Relay

relay = Relay()
child = os.fork()
if child == 0:
    _, events = relay.enter()
    os.write(1, b"printed\\n")
    os.write(events, b'{"call": "c", "type": "end_of_execution"}\\n')
    os._exit(0)
os.waitpid(child, 0)
relay.begin()
relay.step([0], [])  # the request
relay.step([relay.kept[1]], [])  # of all that is there, the events are seen first
relay.step([], [1])
"""


def test_what_was_printed_before_the_end_goes_out_before_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTS_AND_ENDS], input=b'{"call": "c"}\n', capture_output=True, check=True
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"call": "c", "type": "stdout", "text": "printed\n"},
        {"call": "c", "type": "end_of_execution"},
    ]
