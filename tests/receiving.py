"""A program that receives as a node does, and nothing else: to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from medsegdiff.server.pacs.inbox import Inbox
from medsegdiff.server.pacs.receiver import Receiver

if __name__ == "__main__":
    received = Receiver(Inbox(Path(sys.argv[1])), "NODE", host="127.0.0.1", port=int(sys.argv[2]), allowed=["SCANNER"])
    print(received.port, flush=True)
    time.sleep(600)
