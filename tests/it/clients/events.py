"""Reads a data stream whose format is CloudEvents with the SDK of CloudEvents.

Usage: events.py ADDRESS COUNT. Prints type, subject, id and data of COUNT events that are records, as a line of JSON each.
"""

import asyncio
import json
import sys

import websockets
from cloudevents.core.formats.json import JSONFormat

ADDRESS, COUNT = sys.argv[1], int(sys.argv[2])
URL = f"ws://{ADDRESS}/services/v2/stream/s1?begin=earliest"


def show(text):
    """Prints an event if it is a record; what the SDK does not take ends the program."""
    event = JSONFormat().read(None, text)
    data = event.get_data()
    attributes = event.get_attributes()
    assert attributes["specversion"] == "1.0", attributes
    if "pos" not in data:
        return 0
    assert attributes["id"] == data["pos"], attributes
    shown = {
        "type": event.get_type(),
        "subject": event.get_subject(),
        "source": event.get_source(),
        "key": attributes.get("partitionkey"),
        "data": data["xid"],
    }
    print(json.dumps(shown))
    return 1


async def batches():
    seen = 0
    async with websockets.connect(URL) as websocket:
        while seen < COUNT:
            for event in json.loads(await websocket.recv()):
                seen += show(json.dumps(event))


async def one_by_one():
    seen = 0
    protocols = ["cloudevents.json"]
    async with websockets.connect(URL, subprotocols=protocols) as websocket:
        assert websocket.subprotocol == protocols[0]
        while seen < COUNT:
            seen += show(await websocket.recv())


asyncio.run(batches())
asyncio.run(one_by_one())
