"""Serve the values of data.json with FastAPI."""

import json

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse

app = FastAPI()


@app.get("/{path:path}")
def value(path: str):
    """Return the value of a path."""
    with open("data.json") as file:
        found = json.load(file).get(f"/{path}")
    if found is None:
        raise HTTPException(404)
    return PlainTextResponse(found) if isinstance(found, str) else JSONResponse(found)
