/* A library that says into which program it was loaded. */
#include <stdio.h>
#include <unistd.h>

__attribute__((constructor)) static void loaded(void) {
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program);
    dprintf(STDERR_FILENO, "preloaded into %.*s\n", (int)length, program);
}
