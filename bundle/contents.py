"""The contents of the bundle, each entry with its reason."""

from __future__ import annotations

EXTRAS: tuple[str, ...] = ()
"""The extras of pyproject.toml whose dependencies are included; the required ones always are."""

ROOTS = (
    "iptc",  # imported by name at run time, in the firewall's helper process
    "dns.rdtypes.IN.A",  # dnspython imports the types of records by name
    "dns.rdtypes.IN.AAAA",
    "dns.rdtypes.ANY.CNAME",
    "dns.rdtypes.ANY.OPT",
    "dns.rdtypes.ANY.SOA",
    "encodings.ascii",  # codecs are imported by name, too
    "encodings.idna",
    "encodings.latin_1",
    "encodings.punycode",  # of encodings.idna, for a search list or host name that is not ASCII
    "encodings.utf_16",  # json recognises these by a document's first bytes
    "encodings.utf_16_be",
    "encodings.utf_16_le",
    "encodings.utf_32",
    "encodings.utf_32_be",
    "encodings.utf_32_le",
    "encodings.utf_8",
    "encodings.utf_8_sig",
)
"""Modules that are included with all their imports, in addition to src/imds_detour."""

STAND_INS = {"importlib.metadata": "importlib/metadata", "html.entities": "html/entities"}
"""Small replacements for large modules; each gives the reason."""

LEFT_OUT = (
    "_aix_support",  # other operating systems
    "_bootsubprocess",  # for building Python itself
    "_decimal",
    "_hashlib",  # hashes by OpenSSL, 3 MB; hashlib has its own
    "_osx_support",
    "_pydatetime",  # _datetime replaces it
    "_pydecimal",
    "_ssl",  # OpenSSL: mocks speak plain HTTP, as the real service does; optional in dnspython and asyncio
    "_testcapi",
    "_testinternalcapi",
    "asyncio.proactor_events",  # Windows
    "asyncio.windows_events",
    "asyncio.windows_utils",
    "bz2",  # shutil packs archives, if asked
    "concurrent.futures.process",  # wants multiprocessing
    "ctypes._aix",
    "ctypes.wintypes",
    "decimal",  # wanted by statistics
    "distutils",  # firewall/iptables/loader.py keeps it out of python-iptables
    "dns._asyncio_backend",  # asynchronous and dynamic DNS, which imds-detour does not use
    "dns._trio_backend",
    "dns.dnssec",
    "dns.quic._asyncio",
    "dns.quic._common",
    "dns.quic._sync",
    "dns.quic._trio",
    "dns.win32util",
    "dns.zone",
    "doctest",  # run by modules that test themselves
    "encodings.mbcs",  # Windows
    "fractions",  # wanted by statistics
    "iptc.util",  # replaced by firewall/iptables/loader.py
    "idna",  # optional in dnspython; the names are ASCII
    "lib2to3",
    "lzma",
    "multiprocessing",  # for process pools
    "nturl2path",
    "pdb",
    "py_compile",  # a command of its own
    "pydoc",
    "ssl",
    "statistics",  # of random numbers, for a test
    "tarfile",  # shutil packs archives, if asked
    "tenacity.tornadoweb",
    "test",
    "tornado",
    "tracemalloc",
    "typing_extensions",  # for Pythons before 3.11
    "unittest",
    "xml",
)
"""Modules, with their submodules, that an import statement names and that imds-detour never uses.

A start must not reach such a statement, unless a ``try`` catches its ImportError: see tests/bundle/test_imports.py.
"""

EXTENSIONS = (
    "libxt_comment.so",
    "libxt_standard.so",
    "libxt_tcp.so",
    "libxt_NAT.so",
    "libxt_DNAT.so",
    "libipt_REJECT.so",
    "libip6t_REJECT.so",
)
"""The iptables extensions of the rules; libxt_DNAT.so is a link where it is part of libxt_NAT.so."""

LOADED_BY_NAME = (
    "libxtables.so.12",  # see SONAMES in firewall/iptables/loader.py
    "libip4tc.so.2",
    "libip6tc.so.2",
    "libgcc_s.so.1",  # libc asks for it when a thread is ended from outside, and aborts without
)
"""Libraries that no other file names as needed."""

DEBIAN_PACKAGES = (
    "python{python}-minimal",
    "libpython{python}-minimal",
    "libpython{python}-stdlib",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "zlib1g",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libxtables12",
    "gcc-{gcc}-base",  # the licence of the next, and of libgcc-s1
    "libgcc-{gcc}-dev",  # these are to compile and link
    "libc6-dev",
    "linux-libc-dev",
    "musl-dev",
)
"""The packages of another architecture. Those for this machine's bundle are installed (scripts/setup)."""

LICENCES = {
    "gcc": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "glibc": "LGPL-2.1-or-later",
    "iptables": "GPL-2.0-or-later",
    "libc6": "LGPL-2.1-or-later",
    "libexpat1": "MIT",
    "libffi8": "MIT",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libip4tc2": "GPL-2.0-or-later",
    "libip6tc2": "GPL-2.0-or-later",
    "libpython3-minimal": "Python-2.0.1",
    "libpython3-stdlib": "Python-2.0.1",
    "libxtables12": "GPL-2.0-or-later",
    "musl": "MIT",
    "python3-minimal": "Python-2.0.1",
    "zlib1g": "Zlib",
    "dnspython": "ISC",
    "imds-detour": "MIT",
    "python-iptables": "Apache-2.0",
    "tenacity": "Apache-2.0",
}
"""SPDX expressions, by Python distribution and Debian package or source package, without the version in its name."""
