"""Print what boto3 finds in instance metadata: the end of the access key, where it came from, and the region."""

import json

import boto3
from botocore.utils import InstanceMetadataRegionFetcher

session = boto3.Session()
credentials = session.get_credentials()
if credentials is None:
    raise SystemExit("boto3 finds no credentials")
frozen = credentials.get_frozen_credentials()
region = session.region_name or InstanceMetadataRegionFetcher().retrieve_region()
print(json.dumps({"key": frozen.access_key[-4:], "from": credentials.method, "region": region}))
