"""What the client sends when answers fail to come: a server here misbehaves as each test tells it
to."""

import json
import threading
import time
import unittest
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from annals_client import Annals, NoAnswer, Problem

POSITION = "AgAAAAAAAAAAAAAAAAAAAAABAQABgPcGhNQ"  # the first place of partition 0
ACCEPTED = {
    "stream": "order-1",
    "version": 1,
    "position": POSITION,
    "events": [],
    "repeated": False,
}


@contextmanager
def against(*answers):
    """A server; `answers` has what to do with the first request, the second, and so on."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self):
            length = int(self.headers.get("content-length", 0))
            self.body = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            requests.append((time.monotonic(), self.path, headers, self.body))
            answers[min(len(requests), len(answers)) - 1](self)

        do_GET = do_POST = serve

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def answer(handler, status, document, headers=()):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    handler.send_response(status)
    for name, value in [*headers, ("content-length", str(len(content)))]:
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def drop(handler):
    handler.close_connection = True


def hang(handler):
    time.sleep(2)
    drop(handler)


def accept(handler):
    answer(handler, 200, ACCEPTED)


def problem(status, **more):
    return {"status": status, "code": "overloaded", "detail": "later", **more}


def refuse(status, *headers, **more):
    return lambda handler: answer(handler, status, problem(status, **more), headers)


class Retry(unittest.TestCase):
    def test_a_command_without_an_answer_is_sent_again_as_it_was(self):
        with against(drop, refuse(503), refuse(502), accept) as (url, requests):
            sent = Annals(url).send("order-1", "PlaceOrder", {"name": "ü"}, actor="user:me")
            self.assertEqual(sent.version, 1)
            self.assertEqual(len(requests), 4)
            self.assertEqual(json.loads(requests[0][3]), {"name": "ü"})
            self.assertEqual(len(requests[0][2]["idempotency-key"]), 36)
            for request in requests:
                self.assertEqual(request[1:], requests[0][1:])

    def test_pauses_are_at_least_as_long_as_the_server_asks(self):
        first = refuse(503, ("retry-after", "1"))
        second = refuse(503, ("retry-after", "9"), retry_after_ms=400)
        with against(first, second, accept) as (url, requests):
            Annals(url).send("order-1", "PlaceOrder", {})
            one, two, three = (at for at, *_ in requests)
            self.assertGreaterEqual(two - one, 1)
            self.assertGreaterEqual(three - two, 0.4)
            self.assertLess(three - two, 5)

    def test_the_client_stops_at_its_deadline(self):
        late = refuse(503, ("retry-after", "60"))
        for misbehave in (drop, hang, refuse(503), late):
            with against(misbehave) as (url, requests):
                begun = time.monotonic()
                with self.assertRaises(NoAnswer) as raised:
                    Annals(url).send("order-1", "A", {}, id="mine", retry_for=0.6)
                self.assertEqual(raised.exception.command_id, "mine")
                self.assertLess(time.monotonic() - begun, 1.5)
                count = len(requests)
                self.assertTrue(1 <= count < 8, count)
                time.sleep(0.3)
                self.assertEqual(len(requests), count)
        with self.assertRaises(ValueError):
            Annals("http://127.0.0.1:1", retry_for=24 * 60 * 60).send("order-1", "A", {})

    def test_an_answer_that_will_not_change_is_not_asked_for_again(self):
        for status in (400, 404, 412, 413, 500):
            with against(refuse(status)) as (url, requests):
                with self.assertRaises(Problem) as raised:
                    Annals(url).send("order-1", "A", {})
                self.assertEqual((raised.exception.status, len(requests)), (status, 1))

    def test_a_batch_goes_on_after_breaks_in_the_order_of_each_stream(self):
        lines = [{"stream": f"order-{n % 3}", "command": "A", "data": {"n": n}} for n in range(30)]
        taken = {}  # by id, in the order in which they were taken, each once

        def some(count, away, whole):
            """Answers `count` lines, but turns line `away` and the rest of its stream away."""

            def serve(handler):
                barred, answers = set(), []
                for at, text in enumerate(handler.body.splitlines()[:count]):
                    line = json.loads(text)
                    if at == away or line["stream"] in barred:
                        barred.add(line["stream"])
                        answers.append(problem(503, retry_after_ms=1))
                    else:
                        taken.setdefault(line["id"], line)
                        answers.append({**ACCEPTED, "status": 200})
                content = b"".join(json.dumps(one).encode() + b"\n" for one in answers)
                if whole:
                    return answer(handler, 200, content)
                handler.send_response(200)
                handler.send_header("content-length", str(len(content) + 1))
                handler.end_headers()
                handler.wfile.write(content)
                drop(handler)

            return serve

        rest = some(99, -1, True)
        breaks = [some(4, 1, False), drop, refuse(503), some(5, -1, True), some(99, 2, True), rest]
        with against(*breaks) as (url, _):
            outcomes = list(Annals(url).batch(lines, lines_max=20))
            self.assertTrue(all(outcome.accepted for outcome in outcomes))
            self.assertEqual((len(outcomes), len(taken)), (30, 30))
            for stream in ("order-0", "order-1", "order-2"):
                of_stream = [line for line in taken.values() if line["stream"] == stream]
                numbers = [line["data"]["n"] for line in of_stream]
                self.assertEqual(numbers, sorted(numbers))
        with against(some(0, -1, True)) as (url, _):
            with self.assertRaises(NoAnswer):
                next(Annals(url).batch(lines, retry_for=0.3))

    def test_a_query_waits_for_the_latest_position_of_every_partition(self):
        # One log: place 7 of partition 3, place 2^60 of partition 1, and place 5 of partition 3.
        tokens = (
            "AgAAAAAAAAAAAAAAAAAAAAADAQMB4MIyCLU",
            "AgAAAAAAAAAAAAAAAAAAAAA9AQEBgAAAAAAAAAAt0WXj",
            "AgAAAAAAAAAAAAAAAAAAAAADAQMBoLTuSSU",
        )
        merged = "AgAAAAAAAAAAAAAAAAAAAAA9AgEBAQGAAAAAAAAAAAAAAAAAAAHALnUz9A"
        found = {"rows": [], "next": None}
        with against(lambda handler: answer(handler, 200, found)) as (url, requests):
            annals = Annals(url)
            for token in tokens:
                annals.observe(token)
            list(annals.read("order_summary"))
            list(annals.read("order_summary").rows(wait=False))
            sent = [headers.get("annals-min-position") for _, _, headers, _ in requests]
            self.assertEqual(sent, [merged, None])
            annals.observe("Af8")
            self.assertEqual(annals.position, "Af8")


if __name__ == "__main__":
    unittest.main(warnings="ignore")
