"""Oracle Cloud Infrastructure's metadata service, versions 1 and 2."""

from imds_detour_mock.clouds.documents import current_value
from imds_detour_mock.clouds.messages import Reply, Request, refuse, value_reply
from imds_detour_mock.values import Json


def oci(data: Json, request: Request) -> Reply:
    """Answer a read of one Oracle instance. `data` has `instance` and `vnics`, named as in the paths.

    `/opc/v2/` requires the `Authorization` header of Oracle's guide, `/opc/v1/` does not.
    """
    if request.parts[1:2] == ("v2",) and request.headers.get("authorization", "").lower() != "bearer oracle":
        return refuse(403, "send the header Authorization: Bearer Oracle")
    if request.parts[1:2] not in {("v1",), ("v2",)}:
        return refuse(404, "no such version; there are /opc/v1 and /opc/v2")
    node = current_value(data, request.parts[2:], request.now)
    if node is None or len(request.parts) < 3:
        return refuse(404, "no such value; there are instance and vnics")
    return value_reply(node)
