"""Rows for `flip score`, and JSON Lines files of them."""

import json


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(count):
    return [{"id": i, "prompt": "guess", "response": f"response {i}"} for i in range(count)]


def write_rows(path, count):
    path.write_text("".join(json.dumps({"prompt": "guess", "response": f"r{i}"}) + "\n" for i in range(count)))
