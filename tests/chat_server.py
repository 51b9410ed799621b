"""A server on this machine that speaks as much of the OpenAI chat protocol as a run needs.

It answers with what a function makes of the last message; tests put faults into `faults`.
"""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.local_server import answering

VERSION = "toy-1-2026-11-01"


class ChatServer(ThreadingHTTPServer):
    """A chat server.

    Attributes:
        reply: Makes the text of an answer from the text of the last message.
        faults: What befalls the next requests, one each, in order: a status, (status, headers,
            body), `cut`, `silent`, `drip`, or bytes that are sent as the body; None for no fault.
        always: The fault of every other request.
        requests: The requests so far, parsed, without the question about the version.
        headers: The headers of every request.
        seconds: How long it thinks.
        busiest: The largest number of requests at one time.
        version: The model that it says has answered.
    """

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.faults, self.always, self.requests, self.headers = [], None, [], []
        self.seconds, self.busy, self.busiest = 0.0, 0, 0
        self.version = VERSION
        self.lock, self.closing = threading.Lock(), threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # who asked has lost patience


@contextmanager
def chatting(reply):
    """A `ChatServer` that answers until the end of the block."""
    server = ChatServer(reply)
    with answering(server, before_shutdown=server.closing.set):
        yield server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = request["messages"][-1]["content"]
        probe = question.endswith("ready")
        with server.lock:
            server.headers.append({name.lower(): text for name, text in self.headers.items()})
            if not probe:
                server.requests.append(request)
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
            fault = server.faults.pop(0) if server.faults else server.always
        try:
            time.sleep(server.seconds)
            self._answer("ready" if probe else server.reply(question), fault)
        finally:
            with server.lock:
                server.busy -= 1

    def _answer(self, text, fault):
        if isinstance(fault, int):
            fault = (fault, {}, {"error": {"message": f"fault {fault}", "code": None}})
        if isinstance(fault, tuple):
            status, headers, body = fault
            return self._send(status, json.dumps(body).encode(), headers)
        if isinstance(fault, bytes):
            return self._send(200, fault)
        message = {"role": "assistant", "content": text}
        if isinstance(text, dict):
            message |= text
        finish = message.pop("finish", "stop")
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": self.server.version,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 700, "completion_tokens": 300, "total_tokens": 1000},
        }
        return self._send(200, json.dumps(body).encode(), fault=fault)

    def _send(self, status, body, headers=(), fault=None):
        if fault == "silent":
            self.server.closing.wait(5)
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut":
            body, self.close_connection = body[: len(body) // 2], True
        if fault == "drip":
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                self.wfile.flush()
                time.sleep(0.02)
            return
        self.wfile.write(body)
