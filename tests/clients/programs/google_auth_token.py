"""Print the project and the access token that google-auth's application default credentials give."""

import json

import google.auth
from google.auth.transport.requests import Request

credentials, project = google.auth.default()
credentials.refresh(Request())
print(json.dumps({"project": project, "token": credentials.token, "account": credentials.service_account_email}))
