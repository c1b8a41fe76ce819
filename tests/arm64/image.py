"""The virtual machine's kernel and initramfs, from Debian's arm64 packages.

`python -m tests.arm64.image` makes them. It needs the package mirror, so it runs outside the tests' sandbox
(scripts/test-arm64), in the root of the project.
"""

import glob
import io
import lzma
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable

from bundle.debian import Archive, unpack
from bundle.programs import BundleError, run

from tests.arm64.cases import CASES

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUNDLE = f"{ROOT}/build/arm64/imds-detour"
PAGES = os.environ.get("PAGES", "4K")
"""The size of the kernel's pages: 4K, or 16K as some distributions use."""
FOLDER = f"{ROOT}/build/arm64/vm-{PAGES}"
KERNEL, INITRAMFS = f"{FOLDER}/vmlinuz", f"{FOLDER}/initramfs"
KERNELS = {"4K": ("", "linux-image-cloud-arm64"), "16K": ("trixie", "linux-image-arm64-16k")}
"""The release of Debian, this machine's if empty, and the metapackage of a kernel with such pages."""
MODULES = {
    "base": (
        *("veth", "crc32c_generic"),  # of libcrc32c, which names it in a softdep (modinfo(8)) only
        *("nf_tables", "nft_chain_nat", "nft_nat", "nft_reject_ipv4", "nft_reject_ipv6", "nft_reject_inet"),
    ),
    "legacy": (
        *("iptable_nat", "iptable_filter", "ip6table_nat", "ip6table_filter"),
        *("xt_comment", "xt_tcpudp", "xt_nat", "ipt_REJECT", "ip6t_REJECT"),
    ),
}
"""The modules of each firewall. They are loaded in two steps, so that nftables is tested without ip_tables."""
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    "group": "root:x:0:\napp:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n",
    "resolv.conf": "nameserver 10.88.0.1\n",
}


def main() -> int:
    """Write KERNEL and INITRAMFS."""
    os.makedirs(FOLDER, exist_ok=True)
    try:
        root = unpack(packages(), f"{FOLDER}/root")
    except BundleError as error:
        sys.stderr.write(f"test-arm64: {error}\n")
        return 1
    (kernel,) = glob.glob(f"{root}/boot/vmlinuz-*")
    shutil.copy(kernel, KERNEL)
    with open(INITRAMFS, "wb") as file:
        file.write(initramfs(root))
    return 0


def packages() -> list[str]:
    """Return the files of the kernel's package and of busybox's."""
    release, metapackage = KERNELS[PAGES]
    source = ""
    if release:
        targets = run("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages").split()
        sites = [site for site in targets if site.rstrip("/").endswith("/debian")]
        if not sites:
            raise BundleError("no package source of Debian on this machine")
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        source = f"deb [signed-by={keys}] {sites[0]} {release} main"
    archive = Archive("arm64", FOLDER, source)
    pattern = metapackage.replace("linux-image-", r"linux-image-\d\S+-")
    return archive.download((archive.dependency(metapackage, pattern), "busybox-static"))


def initramfs(root: str) -> bytes:
    """Return the archive of the guest's files: busybox, modules, the bundle, and the checks."""
    here = os.path.dirname(os.path.abspath(__file__))
    cpio = Cpio()
    for folder in ("bin", "dev", "proc", "sys", "run", "tmp", "root", "etc", "opt"):
        cpio.folder(folder)
    cpio.file("bin/busybox", read(f"{root}/bin/busybox"), 0o755)
    cpio.link("bin/sh", "busybox")
    cpio.file("init", read(f"{here}/guest/init"), 0o755)
    cpio.tree("guest", f"{here}/guest")
    cpio.file("guest/foreign", foreign(read(f"{root}/bin/busybox")), 0o755)
    cpio.tree("opt/imds-detour", BUNDLE)
    for name, text in ETC.items():
        cpio.file(f"etc/{name}", text.encode())
    loaded: set[str] = set()
    cpio.folder("modules")
    for group, names in MODULES.items():
        cpio.folder(f"modules/{group}")
        for number, (name, content) in enumerate(with_dependencies(root, names)):
            if name not in loaded:
                cpio.file(f"modules/{group}/{number:02}-{name}.ko", content)
            loaded.add(name)
    cpio.folder("checks")
    for number, case in enumerate(CASES):
        cpio.file(f"checks/{number:02}", f"{case.script}\n".encode())
    return cpio.content()


def with_dependencies(root: str, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return modules by name with their content, each after those that it depends on; built-in ones are left out."""
    files = {
        os.path.basename(path).split(".ko")[0].replace("-", "_"): path
        for path in glob.glob(f"{root}/lib/modules/*/kernel/**/*.ko*", recursive=True)
    }
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name not in files or name in ordered:
            return
        content = read(files[name])
        if files[name].endswith(".xz"):
            content = lzma.decompress(content)
        depends = re.search(rb"\0depends=([^\0]*)\0", content)  # modinfo(8)
        for dependency in depends[1].decode().split(",") if depends else ():
            add(dependency.replace("-", "_"))
        ordered[name] = content

    for name in names:
        add(name)
    return list(ordered.items())


def foreign(program: bytes) -> bytes:
    """Return the start of a program as one for x86-64."""
    x86_64 = (62).to_bytes(2, "little")  # linux/elf-em.h
    return program[:18] + x86_64 + program[20:4096]


def read(path: str) -> bytes:
    """Return the content of a file."""
    with open(path, "rb") as file:
        return file.read()


class Cpio:
    """An archive for the kernel (Documentation/driver-api/early-userspace/buffer-format.rst), owned by root."""

    def __init__(self) -> None:
        self._content = io.BytesIO()
        self._entries = 0

    def folder(self, name: str) -> None:
        """Add an empty folder."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file."""
        self._add(name, stat.S_IFREG | mode, content)

    def tree(self, name: str, folder: str) -> None:
        """Add a folder with all that is in it."""
        for place, folders, names in os.walk(folder):
            folders[:] = sorted(folder for folder in folders if folder != "__pycache__")
            below = os.path.normpath(os.path.join(name, os.path.relpath(place, folder)))
            self.folder(below)
            for file in sorted(names):
                path = os.path.join(place, file)
                if os.path.islink(path):
                    self.link(f"{below}/{file}", os.readlink(path))
                else:
                    self.file(f"{below}/{file}", read(path), os.stat(path).st_mode & 0o777)

    def content(self) -> bytes:
        """Return the archive."""
        self._add("TRAILER!!!", 0, b"")
        return self._content.getvalue()

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._entries += 1
        path = name.encode() + b"\0"
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        for part in (header + path, content):
            self._content.write(part + bytes(-len(part) % 4))


if __name__ == "__main__":
    sys.exit(main())
