"""Print the region that boto3's "auto" defaults mode would use: the one of the machine."""

import json

import botocore.session
from botocore.utils import IMDSRegionProvider

print(json.dumps({"region": IMDSRegionProvider(botocore.session.Session()).provide()}))
