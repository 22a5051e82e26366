"""An OpenAI-compatible test server with configurable failures and counts."""

import collections
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TAGGED = re.compile(r"<text-([0-9a-f]{16})>\n(.*)\n</text-\1>\Z", re.DOTALL)


def answer(text, finish="stop", prompt=10, completion=5, **usage):
    """Returns the body of a valid answer."""
    usage = usage.get("usage", {"prompt_tokens": prompt, "completion_tokens": completion})
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]
    return {"choices": choices, "usage": usage}


class Server:
    """`with Server(behave) as server`: behave(source, n) says what the n-th request (from 1) for a
    source text gets: (status, body as dict or bytes, headers), or the name of a trick.

    counts: requests by source. prompt_tokens, completion_tokens: of all usages sent. times: of all
    requests, seconds. seen: (headers, body) of all requests.
    """

    def __init__(self, behave=lambda source, n: (200, answer("re " + source), {})):
        self.behave = behave
        self.counts, self.times, self.seen = collections.Counter(), [], []
        self.prompt_tokens = self.completion_tokens = self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()

    @property
    def requests(self):
        return sum(self.counts.values())

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                outer._serve(self)

            def log_message(self, *args):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 256

            def handle_error(self, request, address):
                pass  # the client hung up

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        found = TAGGED.search(body["messages"][-1]["content"])
        source = found[2] if found else ""
        with self._lock:
            self.counts[source] += 1
            self.times.append(time.monotonic())
            self.seen.append((dict(handler.headers), body))
            n = self.counts[source]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._reply(handler, self.behave(source, n))
        finally:
            with self._lock:
                self._at_once -= 1

    def _reply(self, handler, reply):
        if reply == "reset":
            handler.close_connection = True
            handler.connection.close()
            return
        if reply == "silence":
            time.sleep(1.5)
            handler.close_connection = True
            return
        drip = reply == "drip"
        status, body, headers = (200, answer("slow"), {}) if drip else reply
        if isinstance(body, dict):
            usage = body.get("usage") or {}
            if isinstance(usage.get("prompt_tokens"), int):
                with self._lock:
                    self.prompt_tokens += usage["prompt_tokens"]
                    self.completion_tokens += usage["completion_tokens"]
            body = json.dumps(body).encode()
        handler.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for at in range(0, len(body), 1 if drip else len(body) or 1):
            handler.wfile.write(body[at : at + (1 if drip else len(body))])
            if drip:
                handler.wfile.flush()
                time.sleep(0.05)
