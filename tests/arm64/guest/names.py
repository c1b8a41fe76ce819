"""The DNS server: it answers for the names of /run/names, lines of a name and its addresses, as the file is now."""

import dns.message

from imds_detour.ctl.lab import nameserver


def answer(question: dns.message.QueryMessage, _transport: str) -> bytes:
    """Reply with the addresses of the name in question."""
    with open("/run/names") as file:
        known = dict(line.split() for line in file)
    name = question.question[0].name.to_text(omit_final_dot=True)
    if name not in known:
        return nameserver.refusal(question, "NXDOMAIN")
    return nameserver.addresses(question, f"{name}.", known[name].split(","))


nameserver.serve("0.0.0.0", answer)
