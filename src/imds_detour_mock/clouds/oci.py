"""Oracle Cloud Infrastructure's metadata service, versions 1 and 2."""

from dataclasses import dataclass

from imds_detour_mock.clouds.documents import fill, find, scalar
from imds_detour_mock.clouds.messages import Reply, Request, document, only, refuse, text
from imds_detour_mock.values import Json


@dataclass(frozen=True, slots=True)
class Oci:
    """One Oracle instance: `/opc/v2/` with the header that its guide wants, `/opc/v1/` without."""

    data: Json
    """`instance` and `vnics`, as their paths have it."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`."""
        if not request.reads:
            return only("GET, HEAD")
        if request.parts[1:2] == ("v2",) and request.headers.get("authorization", "").lower() != "bearer oracle":
            return refuse(403, "send the header Authorization: Bearer Oracle")
        if request.parts[1:2] not in {("v1",), ("v2",)}:
            return refuse(404, "no such version; there are /opc/v1 and /opc/v2")
        node = fill(find(self.data, request.parts[2:]), request.now)
        if node is None or len(request.parts) < 3:
            return refuse(404, "no such value; there are instance and vnics")
        return document(node) if isinstance(node, dict | list) else text(scalar(node))
