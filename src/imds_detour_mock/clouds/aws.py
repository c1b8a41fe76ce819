"""The metadata services of EC2 (IMDSv1 and IMDSv2) and Alibaba Cloud, which differ in header names."""

import json
from dataclasses import dataclass, field

from imds_detour_mock.clouds.credentials import Rotation, current_credentials
from imds_detour_mock.clouds.documents import fill_times
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse, refuse_method, text_reply
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.clouds.tokens import Tokens, parse_seconds
from imds_detour_mock.values import Json

MAX_TTL = 21600  # seconds of the longest session that the real services grant
VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01"),
    *("2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19"),
    *("2016-06-30", "2016-09-02", "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03"),
    *("2021-03-23", "2021-07-15", "2022-09-24", "2024-04-11", "latest"),
)

_TOKEN_PATH = ("latest", "api", "token")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The differences between the two clouds."""

    ttl_header: str  # the header that requests a session token. Its value is the token's lifetime in seconds.
    session_header: str  # the header that carries the session token
    versions: tuple[str, ...]  # the versions that can start a path


AWS = Dialect("X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token", VERSIONS)
ALIBABA = Dialect("X-aliyun-ecs-metadata-token-ttl-seconds", "X-aliyun-ecs-metadata-token", ("2016-01-01", "latest"))


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance's metadata service."""

    data: dict[str, Json]  # `meta-data`, `user-data` and `dynamic`, as returned by `load`
    dialect: Dialect = AWS  # the cloud's header names and versions
    require_token: bool = False  # refuse a read without a session token (IMDSv2 only)
    rotation: Rotation | None = None  # rotates the role's credentials; None keeps them
    notices: Notices = field(default_factory=Notices)  # the scheduled Spot and rebalance notices
    tokens: Tokens = field(default_factory=Tokens)  # issues and checks the session tokens

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        if request.parts == _TOKEN_PATH:
            return self._issue(request)
        if not request.reads:
            return refuse_method("GET, HEAD")
        session = self.dialect.session_header
        token = request.headers.get(session.lower())
        if token is None and self.require_token:
            return refuse(401, f"first PUT /latest/api/token, then send what it answers as {session}")
        if token is not None and not self.tokens.valid(token, request.now):
            return refuse(401, "this token is unknown or its time is over")
        return self._read(request.parts, request.now)

    def _issue(self, request: Request) -> Reply:
        if request.method != "PUT":
            return refuse_method("PUT")
        if "x-forwarded-for" in request.headers:
            return refuse(403, "no token for a request that came through a proxy (it has X-Forwarded-For)")
        ttl = parse_seconds(request.headers.get(self.dialect.ttl_header.lower(), ""), MAX_TTL)
        if ttl is None:
            return refuse(400, f"send {self.dialect.ttl_header} with a number of seconds from 1 to {MAX_TTL}")
        return text_reply(self.tokens.issue(ttl, request.now), 200, (self.dialect.ttl_header, str(ttl)))

    def _read(self, parts: tuple[str, ...], now: float) -> Reply:
        if not parts:
            return text_reply("\n".join(self.dialect.versions))
        if parts[0] not in self.dialect.versions:
            return refuse(404, "no such version; / lists them")
        data = self.notices.apply(self.data, now)
        if len(parts) == 1:
            return text_reply("\n".join(sorted(data)))  # the real service writes no slashes at this level
        node: Json = data
        for part in parts[1:]:
            node = _child(node, part)
        return refuse(404, "no such value") if node is None else self._render(node, now)

    def _render(self, node: Json, now: float) -> Reply:
        if not isinstance(node, dict):
            return text_reply(node if isinstance(node, str) else json.dumps(node))
        if "$json" in node:
            value = node["$json"]
            if isinstance(value, dict) and "AccessKeyId" in value:
                return json_reply(current_credentials(value, self.rotation, now), indent=2)
            return json_reply(fill_times(value, now), indent=2)
        return text_reply("\n".join(f"{name}/" if _is_directory(name, node[name]) else name for name in sorted(node)))


def _child(node: Json, name: str) -> Json:
    if not isinstance(node, dict) or "$json" in node:
        return None
    if name in node:
        return node[name]
    # The directory public-keys lists "0=name" and serves it as "0".
    return next((child for key, child in node.items() if key.startswith(f"{name}=")), None)


def _is_directory(name: str, node: Json) -> bool:
    return isinstance(node, dict) and "$json" not in node and "=" not in name
