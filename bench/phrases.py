"""What the READMEs' figures are called, in both languages."""

from __future__ import annotations

LANGUAGES = {"README.md": 0, "README.es.md": 1}
"""Which of the two a README is in."""

PHRASES = {
    "head": (
        "Medians on {machine}; ratios are taken run by run, side by side. ✗: not reached.",
        "Medianas en {machine}; las razones se toman corrida por corrida, lado a lado. ✗: no se alcanzó.",
    ),
    "processors": ("processors", "procesadores"),
    "others": ("others", "otros"),
    "start": (
        "start to exec, verified (the script verifies nothing)",
        "del inicio al exec, comprobado (el script no comprueba nada)",
    ),
    "nft": ("the same by nftables", "lo mismo con nftables"),
    "ipv6": ("the same with IPv6 too (the script: IPv4 alone)", "lo mismo también con IPv6 (el script: solo IPv4)"),
    "name": (
        "from the mock's name to the app, when it comes late",
        "desde que el nombre del mock existe hasta la app, cuando llega tarde",
    ),
    "answer": ("from the mock's first answer to the app", "desde la primera respuesta del mock hasta la app"),
    "stop": ("stop while DNS hangs", "señal de fin mientras el DNS no responde"),
    "memory": ("sidecar: memory", "sidecar: memoria"),
    "idle": ("sidecar: processor while nothing happens", "sidecar: procesador mientras no pasa nada"),
    "moved": (
        "sidecar: DNS changed, to verified at the new address",
        "sidecar: desde que cambia el DNS hasta comprobado en la nueva dirección",
    ),
    "quickest": (", the quickest of {count}", ", el más rápido de {count}"),
    "of it": (", {times:.2f} of it", ", {times:.2f} veces eso"),
    "of the script": (", {times:.2f} of its time", ", {times:.2f} veces su tiempo"),
    "wanted": ("wanted: {reach}", "meta: {reach}"),
    "one": ("one sample", "una muestra"),
    "throughput": (
        "throughput through the redirect, over direct (wanted: 0.95)",
        "peticiones por segundo a través del desvío, sobre las directas (meta: 0.95)",
    ),
    "sdk": ("SDK-like client", "cliente como un SDK"),
    "wrk": ("wrk", "wrk"),
    "computed": ("computed", "calculado"),
    "processor": ("by processor time", "por tiempo de procesador"),
    "clock": ("by the clock", "por reloj"),
    "kept": ("a kept connection", "una conexión que se conserva"),
    "each": ("a connection per request", "una conexión por petición"),
    "kept, Docker": ("a kept connection, Docker network", "una conexión que se conserva, red de Docker"),
    "each, Docker": ("a connection per request, Docker network", "una conexión por petición, red de Docker"),
    "about throughput": (
        (
            "Computed: from the work that the redirect adds in the kernel and from what a request takes. Beside it is"
            " what was measured: medians, whose 95 % intervals are up to {width:.2f} wide. Of the two firewalls, each"
            " value is that of the one that does worse."
        ),
        (
            "Calculado: con el trabajo que el desvío agrega en el kernel y con lo que cuesta una petición. Al lado está"
            " lo medido: medianas, con intervalos del 95 % de hasta {width:.2f} de ancho. De los dos firewalls se"
            " muestra cada vez el que sale peor."
        ),
    ),
    "crowd": (
        (
            "{crowd} starts at once against one mock, {runs} times: {failed:g} of all failed; medians: the last app"
            " began after {seconds:.1f} s, {questions} DNS questions each{wanted}."
        ),
        (
            "{crowd} arranques a la vez contra un mock, {runs} veces: de todos fallaron {failed:g}; medianas: la"
            " última app empezó a los {seconds:.1f} s, {questions} consultas DNS cada uno{wanted}."
        ),
    ),
    "startup": (
        "Where a start's time goes: script, pip install, bundle",
        "En qué se va el tiempo de un arranque: script, pip install, bundle",
    ),
    "about startup": (
        "This picture is from a series of its own, with `MOCK_LOG=debug` (the script: `bash -x`).",
        "Esta imagen es de una serie aparte, con `MOCK_LOG=debug` (el script: `bash -x`).",
    ),
    "reaction": (
        "From the mock's first answer to the app, by tool",
        "De la primera respuesta del mock a la app, por herramienta",
    ),
}
