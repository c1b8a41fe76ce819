/* bin/imds-detour and bin/imds-detourctl of the bundle: start the bundle's Python.
 *
 * It is static, so it runs in any image, and small, so it starts fast. It does what must happen before Python starts:
 *
 *   - block the stop signals: as PID 1, a signal without a handler is lost, and a blocked one is kept for later;
 *   - note the blocked and the ignored signals: Python itself ignores two;
 *   - save the environment in an unnamed file, and start Python with an empty one: LD_PRELOAD, GLIBC_TUNABLES,
 *     PYTHONHOME, LC_ALL and the like are meant for the app.
 *
 * src/imds_detour/bootstrap/bundle.py reads the arguments before "--" of the command line that this program makes.
 *
 * Build it with LOADER and PYTHON defined: file names below lib/ and libexec/.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CANNOT_START 125 /* the status of docker and env(1) for their own failures */
#define SIGNALS 64       /* asm-generic/signal.h, _NSIG; the kernel's set of them is one 64-bit word */
#define BIT(number) (UINT64_C(1) << ((number) - 1))
/* Common signals that end a process by default; 34 to 64 are SIGRTMIN to SIGRTMAX. handover.STOPS is the same list. */
#define STOPS                                                                                                         \
    (BIT(SIGHUP) | BIT(SIGINT) | BIT(SIGQUIT) | BIT(SIGUSR1) | BIT(SIGUSR2) | BIT(SIGTERM) | ~(BIT(34) - 1))

static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        /* stderr is closed: the exit status still tells */
    }
}

static _Noreturn void fail(const char *what) {
    const char *why = strerror(errno);
    say("imds-detour: cannot start: ");
    say(what);
    say(": ");
    say(why);
    say("\n");
    _exit(CANNOT_START);
}

/* libc reserves and hides the signals 32 and 33, so this uses the kernel's calls. */
static uint64_t block_stops(void) {
    uint64_t stops = STOPS, before = 0;
    if (syscall(SYS_rt_sigprocmask, SIG_BLOCK, &stops, &before, sizeof stops) != 0) fail("sigprocmask");
    return before;
}

static uint64_t ignored(void) {
    uint64_t found = 0;
    for (int number = 1; number <= SIGNALS; number++) {
        struct {
            void (*handler)(int); /* the kernel's struct sigaction begins so on every machine but MIPS */
            uint64_t rest[8];
        } action = {0};
        if (syscall(SYS_rt_sigaction, number, NULL, &action, sizeof found) == 0 && action.handler == SIG_IGN)
            found |= BIT(number);
    }
    return found;
}

static void put(int file, const char *from, const char *to) {
    while (from < to) {
        ssize_t written = write(file, from, to - from);
        if (written < 0) fail("write to a memfd");
        from += written;
    }
}

/* Return a file with the environment as the kernel gave it, a NUL after each entry. */
static int put_aside(char **environment) {
    int file = memfd_create("environ", 0);
    if (file < 0) fail("memfd_create");
    if (file <= STDERR_FILENO) { /* a closed standard stream, which must stay closed */
        int higher = fcntl(file, F_DUPFD, STDERR_FILENO + 1);
        if (higher < 0) fail("fcntl F_DUPFD");
        close(file);
        file = higher;
    }
    /* The entries are usually contiguous and need one write(); otherwise they need more. */
    char *from = *environment, *to = from;
    for (char **entry = environment; *entry != NULL; entry++) {
        if (*entry != to) {
            put(file, from, to);
            from = *entry;
        }
        to = *entry + strlen(*entry) + 1;
    }
    put(file, from, to);
    return file;
}

/* Write the path of this file with links resolved; /proc may be hidden, so there is a fallback. */
static void find_self(char path[PATH_MAX]) {
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (length > 0 && path[0] == '/') {
        path[length] = '\0';
        return;
    }
    const char *started_as = (const char *)getauxval(AT_EXECFN);
    if (started_as == NULL || realpath(started_as, path) == NULL) fail("cannot find the folder of imds-detour");
}

/* Cut the last part off a path, and return it. */
static const char *cut(char *path) {
    char *slash = strrchr(path, '/');
    if (slash == NULL) fail("cannot find the folder of imds-detour");
    *slash = '\0';
    return slash + 1;
}

int main(int count, char **words, char **environment) {
    uint64_t came_blocked = block_stops();

    char root[PATH_MAX], loader[PATH_MAX], libraries[PATH_MAX], python[PATH_MAX];
    find_self(root);
    const char *name = cut(root);
    cut(root);
    int fits = snprintf(loader, sizeof loader, "%s/lib/%s", root, LOADER) < PATH_MAX &&
               snprintf(libraries, sizeof libraries, "%s/lib", root) < PATH_MAX &&
               snprintf(python, sizeof python, "%s/libexec/%s", root, PYTHON) < PATH_MAX;
    errno = ENAMETOOLONG;
    if (!fits) fail(root);

    char launched[64], aside[32];
    snprintf(launched, sizeof launched, "--launched=%016llx:%016llx", (unsigned long long)came_blocked,
             (unsigned long long)ignored());
    snprintf(aside, sizeof aside, "--environ=%d", put_aside(environment));

    char *start[] = {
        loader, "--inhibit-cache", "--library-path", libraries, python, "-I", "-S", "-X", "utf8", "-c",
        "import imds_detour.bootstrap.bundle", (char *)name, launched, aside, "--",
    };
    size_t own = sizeof start / sizeof *start, given = count > 0 ? count - 1 : 0;
    char *command[own + given + 1]; /* on the stack: the kernel limits arguments to a quarter of it */
    memcpy(command, start, sizeof start);
    memcpy(command + own, words + 1, given * sizeof *words);
    command[own + given] = NULL;

    /* Another locale would make Python read locale files, and the image's may be of another libc. */
    char *clean[] = {"LC_ALL=C", NULL};
    execve(loader, command, clean);
    fail(loader);
}
