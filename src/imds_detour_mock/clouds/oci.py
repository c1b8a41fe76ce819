"""Oracle Cloud Infrastructure's metadata service, versions 1 and 2."""

from dataclasses import dataclass

from imds_detour_mock.clouds.documents import current_value, to_text
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse, refuse_method, text_reply
from imds_detour_mock.values import Json


@dataclass(frozen=True, slots=True)
class Oci:
    """One Oracle instance. `/opc/v2/` requires the `Authorization` header of Oracle's guide, `/opc/v1/` does not."""

    data: Json
    """`instance` and `vnics`, named as in the paths."""

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        if not request.reads:
            return refuse_method("GET, HEAD")
        if request.parts[1:2] == ("v2",) and request.headers.get("authorization", "").lower() != "bearer oracle":
            return refuse(403, "send the header Authorization: Bearer Oracle")
        if request.parts[1:2] not in {("v1",), ("v2",)}:
            return refuse(404, "no such version; there are /opc/v1 and /opc/v2")
        node = current_value(self.data, request.parts[2:], request.now)
        if node is None or len(request.parts) < 3:
            return refuse(404, "no such value; there are instance and vnics")
        return json_reply(node) if isinstance(node, dict | list) else text_reply(to_text(node))
