"""Print the managed identity's access token, by the credential that production code names itself."""

import json

from azure.identity import ManagedIdentityCredential

token = ManagedIdentityCredential().get_token("https://management.azure.com/.default")
print(json.dumps({"token": token.token}))
