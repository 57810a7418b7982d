"""The client that the protocol's documentation shows: create by POST, connect, and go through what comes.

Usage: seed.py ADDRESS BEGIN COUNT [USER PASSWORD]. Prints `xid` and `pos` of COUNT records, a line each.
"""

import asyncio
import json
import sys

import requests
import websockets

ADDRESS, BEGIN, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
CREDENTIALS = tuple(sys.argv[4:6]) or None
PATH = f"{ADDRESS}/services/v2/stream/s1"


async def client():
    response = requests.post(
        f"http://{PATH}", json={"source": {"trail": "a1"}}, auth=CREDENTIALS, timeout=30
    )
    # The second time it is there.
    assert response.status_code in (201, 409), response.text
    at = f"{CREDENTIALS[0]}:{CREDENTIALS[1]}@" if CREDENTIALS else ""
    left = COUNT
    async with websockets.connect(f"ws://{at}{PATH}?begin={BEGIN}") as websocket:
        while left:
            for record in json.loads(await websocket.recv()):
                if "pos" in record and left:
                    print(record["xid"], record["pos"])
                    left -= 1


asyncio.run(client())
