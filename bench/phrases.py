"""The texts of the figures in documents, in both languages."""

from __future__ import annotations

LANGUAGES = {"README.md": 0, "README.es.md": 1, "docs/performance.md": 0, "docs/performance.es.md": 1}
"""Which of the two a document is in."""

PHRASES = {
    "head": (
        "Medians on {machine}; ratios compare runs of the same round. ✗: target missed.",
        "Medianas en {machine}; las razones comparan corridas de la misma ronda. ✗: no se alcanzó la meta.",
    ),
    "about summary": (
        (
            "✗: target missed. Throughput through the redirect: at least {lowest:.2f} of direct (target: 0.95){mark}."
            " All figures, measured by `make bench`: [{page}]({page})."
        ),
        (
            "✗: no se alcanzó la meta. Peticiones por segundo a través del desvío: al menos {lowest:.2f} de las"
            " directas (meta: 0.95){mark}. Todas las cifras, medidas con `make bench`: [{page}]({page})."
        ),
    ),
    "missed": ("Targets missed as well: {listed}.", "Tampoco se alcanzó la meta en: {listed}."),
    "processors": ("processors", "procesadores"),
    "measured": ("imds-detour {version}, {date}. ", "imds-detour {version}, {date}. "),
    "quick": ("Few samples, by a quick run. ", "Pocas muestras, de una corrida rápida. "),
    "same": ("start to exec, the script does the same work", "del inicio al exec; el script hace el mismo trabajo"),
    "same, IPv6": ("the same work, with IPv6", "el mismo trabajo, con IPv6"),
    "same, nft, IPv6": ("the same work, with nftables and IPv6", "el mismo trabajo, con nftables e IPv6"),
    "processor time": (
        "processor time of a start, the same work",
        "tiempo de procesador de un arranque, el mismo trabajo",
    ),
    "processor time, nft": (
        "processor time of a start with nftables, the same work",
        "tiempo de procesador de un arranque con nftables, el mismo trabajo",
    ),
    "later, HTTP": (
        "from the mock's first answer, after a wait of 4 to 16 s, relative to it",
        "desde la primera respuesta del mock tras 4 a 16 s de espera, en relación con ella",
    ),
    "floors": (
        (
            "The floor of a start, as shares of that script's time by the clock and of its processor time, for pip"
            " install and for the bundle: the interpreter alone takes {0} and {6}, with the modules of a start by"
            " nftables {1} and {7}. One process of Python that does what the script does, and reads the rules back,"
            " takes {2} and {8} with python-iptables, {3} and {9} with nftables. One that loads the modules of a start"
            " and keeps its promise takes {4} and {10} with python-iptables, {5} and {11} with nftables: it guards all"
            " addresses, asks with a session token, and reads guard and redirect back before the proof and before the"
            " app. None of them has settings or messages, and a library that ends it ends the start."
        ),
        (
            "El piso de un arranque, como parte del tiempo de ese script según el reloj y de su tiempo de procesador,"
            " con pip install y con el bundle: el intérprete solo toma {0} y {6}, y con los módulos de un arranque con"
            " nftables {1} y {7}. Un proceso de Python que hace lo que el script, y que relee las reglas, toma {2} y"
            " {8} con python-iptables, {3} y {9} con nftables. Uno que carga los módulos de un arranque y cumple lo que"
            " este promete toma {4} y {10} con python-iptables, {5} y {11} con nftables: cierra todas las direcciones,"
            " pregunta con un token de sesión y relee todas sus reglas antes de la prueba y antes de la app. Ninguno"
            " tiene configuración ni mensajes, y una biblioteca que lo termina, termina el arranque."
        ),
    ),
    "reaction floor": (
        (
            "What a reaction in the first two seconds consists of: {0:g} ms, half a pause between two questions, and"
            " the work after the answer, as in a start: {1:.1f} ms (pip install) and {2:.1f} ms (bundle). Pauses below"
            " 17.5 ms in place of 19 could ask more than 180 questions in 30 s."
        ),
        (
            "De qué consta una reacción en los primeros dos segundos: {0:g} ms, media pausa entre dos preguntas, y el"
            " trabajo tras la respuesta, como en un arranque: {1:.1f} ms (pip install) y {2:.1f} ms (bundle). Con"
            " pausas de menos de 17.5 ms en vez de 19 podrían ser más de 180 preguntas en 30 s."
        ),
    ),
    "later, DNS": (
        "from the mock's name to the app, after a wait of 4 to 16 s, relative to it",
        "desde que el nombre del mock existe hasta la app tras 4 a 16 s de espera, en relación con ella",
    ),
    "waiting": (
        "A wait of {seconds} s: at most {dns:g} DNS queries{dns_mark}, {http:g} connections to the mock{http_mark}.",
        "En {seconds} s de espera: a lo sumo {dns:g} consultas DNS{dns_mark}, {http:g} conexiones al mock{http_mark}.",
    ),
    "pods": (
        (
            "60 sidecars at once, probed by HTTP: {unready:g} did not become ready{unready_mark}, the last one after"
            " {seconds:.0f} s{seconds_mark}; {packets:g} packets to the real service{packets_mark}."
        ),
        (
            "60 sidecars a la vez, sondeados por HTTP: {unready:g} no estuvieron listos{unready_mark}, el último a los"
            " {seconds:.0f} s{seconds_mark}; {packets:g} paquetes al servicio real{packets_mark}."
        ),
    ),
    "no target": (" (no target: the kernel's own cost)", " (sin meta: costo propio del kernel)"),
    "others": ("others", "otros"),
    "start": (
        "start to exec, verified (the script verifies nothing)",
        "del inicio al exec, comprobado (el script no comprueba nada)",
    ),
    "nft": ("the same with nftables", "lo mismo con nftables"),
    "ipv6": ("the same with IPv6 as well (the script: IPv4 only)", "lo mismo también con IPv6 (el script: solo IPv4)"),
    "name": (
        "from the mock's name to the app, if the name comes late",
        "desde que el nombre del mock existe hasta la app, si el nombre llega tarde",
    ),
    "answer": ("from the mock's first answer to the app", "desde la primera respuesta del mock hasta la app"),
    "stop": ("stop while DNS hangs", "señal de fin mientras el DNS no responde"),
    "memory": ("sidecar: memory", "sidecar: memoria"),
    "idle": ("sidecar: processor while idle", "sidecar: procesador en reposo"),
    "moved": (
        "sidecar: from a DNS change to verified at the new address",
        "sidecar: desde que cambia el DNS hasta comprobado en la nueva dirección",
    ),
    "quickest": (", the fastest of {count}", ", el más rápido de {count}"),
    "of it": (", {times:.2f} of it", ", {times:.2f} veces eso"),
    "of the script": (", {times:.2f} of its time", ", {times:.2f} veces su tiempo"),
    "wanted": ("target: {reach}", "meta: {reach}"),
    "one": ("one sample", "una muestra"),
    "throughput": (
        "throughput through the redirect, relative to direct (target: 0.95)",
        "peticiones por segundo a través del desvío, en relación con las directas (meta: 0.95)",
    ),
    "sdk": ("SDK-like client", "cliente como un SDK"),
    "wrk": ("wrk", "wrk"),
    "computed": ("computed", "calculado"),
    "processor": ("by processor time", "por tiempo de procesador"),
    "clock": ("by the clock", "por reloj"),
    "kept": ("keep-alive", "keep-alive"),
    "each": ("a connection per request", "una conexión por petición"),
    "kept, Docker": ("keep-alive, Docker network", "keep-alive, red de Docker"),
    "each, Docker": ("a connection per request, Docker network", "una conexión por petición, red de Docker"),
    "about throughput": (
        (
            "Computed: from the kernel work that the redirect adds, and from the cost of a request. The other columns"
            " are measured medians; their 95 % intervals are up to {width:.2f} wide. Each value is that of the slower"
            " firewall."
        ),
        (
            "Calculado: a partir del trabajo que el desvío agrega en el kernel y de lo que cuesta una petición. Las"
            " otras columnas son medianas medidas; sus intervalos del 95 % tienen hasta {width:.2f} de ancho. Cada"
            " valor es el del firewall más lento."
        ),
    ),
    "crowd": (
        (
            "{crowd} starts at once against one mock, {runs} times: {failed:g} failed. Medians: the last app started"
            " after {seconds:.1f} s; {questions} DNS queries per start{wanted}."
        ),
        (
            "{crowd} arranques a la vez contra un mock, {runs} veces: fallaron {failed:g}. Medianas: la última app"
            " arrancó a los {seconds:.1f} s; {questions} consultas DNS por arranque{wanted}."
        ),
    ),
    "startup": (
        "Where a start's time goes: script, pip install, bundle",
        "En qué se va el tiempo de un arranque: script, pip install, bundle",
    ),
    "about startup": (
        "This plot is from a separate series, with `MOCK_LOG=debug` (the script: `bash -x`).",
        "Este gráfico es de una serie aparte, con `MOCK_LOG=debug` (el script: `bash -x`).",
    ),
    "reaction": (
        "From the mock's first answer to the app, by tool",
        "De la primera respuesta del mock a la app, por herramienta",
    ),
}
