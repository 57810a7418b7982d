"""Runs a client that the AsyncAPI generator has made.

Usage: generated.py DIRECTORY COUNT. Prints the `xid` of COUNT records, a line each.
"""

import json
import queue
import sys

sys.path.insert(0, sys.argv[1])

from client import Syncgate_data_streams  # noqa: E402

COUNT = int(sys.argv[2])
messages = queue.Queue()
client = Syncgate_data_streams()
client.register_message_handler(messages.put)
client.connect()
left = COUNT
while left:
    for record in json.loads(messages.get(timeout=30)):
        if "pos" in record and left:
            print("xid", record["xid"])
            left -= 1
client.close()
