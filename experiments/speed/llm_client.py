"""Measures the share of a server's rate limit that the client of language models uses.

    python experiments/speed/llm_client.py              # measures llm_client.json, 75 s a row
    python experiments/speed/llm_client.py --table      # prints the table

A local server takes 0.1 to 0.5 s for an answer of a length unknown to the client, and counts the
requests and tokens that it receives. The client is given the limit of requests or tokens per
minute.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.augment import ops
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
SECONDS, WINDOW = 75, 60
ALLOWANCES = {"requests": 1200, "tokens": 540_000}  # per minute
TOKENS = 450  # of a request with its answer, on average


class Server:
    """Answers chat completions. counted: [(seconds, requests, tokens)] in order of arrival."""

    def __init__(self):
        self.counted, self.rng, started = [], np.random.default_rng(0), threading.Event()

        async def run():
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            started.set()
            await server.serve_forever()

        threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
        started.wait()

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the client left
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                messages = json.loads(await reader.readexactly(length))["messages"]
                await self.answer(messages, writer)
        writer.close()

    async def answer(self, messages, writer):
        prompt = len("".join(message["content"] for message in messages)) * 10 // 43
        completion = int(self.rng.integers(20, 250))
        self.counted.append((time.perf_counter(), 1, prompt + completion))
        await asyncio.sleep(self.rng.uniform(0.1, 0.5))
        choice = {"message": {"content": "a rewrite"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": prompt, "completion_tokens": completion}
        body = json.dumps({"choices": [choice], "usage": usage}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


def measure(what: str) -> dict:
    """Measures the used share of the limit over the run, and the largest in any 60 s."""
    server, allowance = Server(), ALLOWANCES[what]
    expected = allowance / (TOKENS if what == "tokens" else 1) / 60 * SECONDS
    texts = [f"text {i} " + "word " * (i % 120) for i in range(int(expected))]
    with tempfile.TemporaryDirectory() as folder:
        limit = {f"{what}_per_minute": allowance, "concurrency": 64}
        arguments = {"model": "m", "cache": f"{folder}/cache", "base_url": server.url} | limit
        op = ops.build("llm", (), arguments)
        op(texts, [np.random.default_rng(i) for i in range(len(texts))])
    times, *amounts = np.array(server.counted).T
    amount = amounts[0 if what == "requests" else 1]
    # The interval after the last arrival is not part of the measured time.
    share = amount[:-1].sum() / (times[-1] - times[0]) * 60 / allowance
    windows = [amount[(times >= t) & (times < t + WINDOW)].sum() for t in times]
    agree = op.usage.requests == len(times) and op.usage.most_tokens == amounts[1].sum()
    return {
        "allowance_per_minute": allowance,
        "requests": len(times),
        "seconds": times[-1] - times[0],
        "share_used": share,
        "largest_share_in_60_s": max(windows) / WINDOW * 60 / allowance,
        "ledger_agrees": bool(agree),
    }


def table() -> str:
    """Tabulates the shares by kind of limit."""
    rows = [
        [
            f"{record['allowance_per_minute']:,} {what}",
            f"{record['requests']:,}",
            f"{record['seconds']:.0f}",
            f"{100 * record['share_used']:.1f}",
            f"{100 * record['largest_share_in_60_s']:.1f}",
            "yes" if record["ledger_agrees"] else "no",
        ]
        for what, record in json.loads(RECORD.read_text())["limits"].items()
    ]
    titles = [
        "allowance of a minute",
        "requests",
        "s",
        "used, %",
        "most in any 60 s, %",
        "ledger equals the server's count",
    ]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    if "--table" not in sys.argv:
        limits = {what: measure(what) for what in ALLOWANCES}
        write_json(RECORD, {"limits": limits, "provenance": provenance.collect()})
    print(table())
