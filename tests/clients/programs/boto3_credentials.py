"""Print the credentials that boto3 finds by its default chain, and where it found them."""

import json

import boto3

credentials = boto3.Session().get_credentials()
frozen = credentials.get_frozen_credentials()
print(json.dumps({"key": frozen.access_key, "token": frozen.token, "method": credentials.method}))
