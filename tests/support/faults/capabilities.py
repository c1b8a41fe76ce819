"""Commands that start another one with fewer capabilities."""

DOCKER = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,"
    "audit_write,setfcap"
)
"""Docker's default capabilities (moby: oci/caps/defaults.go)."""
PODMAN = "chown,dac_override,fowner,fsetid,kill,net_bind_service,setfcap,setgid,setpcap,setuid,sys_chroot"
"""Podman's default capabilities (containers/common: pkg/config/default.go): without NET_RAW."""


def without(capability: str) -> tuple[str, ...]:
    """Return a command that drops a capability, as ``cap_drop`` does."""
    return ("setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}")


def only(*capabilities: str) -> tuple[str, ...]:
    """Return a command that drops all capabilities except these; each argument may name several, with commas."""
    kept = "".join(f",+{name}" for names in capabilities for name in names.split(","))
    return ("setpriv", "--inh-caps=-all", f"--bounding-set=-all{kept}")
