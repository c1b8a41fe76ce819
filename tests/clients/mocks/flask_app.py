"""Serve the values of data.json with Flask."""

import json

from flask import Flask, abort, request

app = Flask(__name__)


@app.get("/<path:_path>")
def value(_path):
    """Return the value of a path."""
    with open("data.json") as file:
        return json.load(file).get(request.path) or abort(404)
