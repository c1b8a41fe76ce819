/* The kernel's cost of a round trip, without other processes.
 *
 * One thread has both ends of each connection: the server's in one network namespace, the client's in another. All work
 * between send() and recv() then happens inside those calls, without a wait or a switch to another process, so their
 * time is that of the kernel's path. Paths take turns, batch by batch, so that other load affects all of them alike.
 *
 *   pathcost keep|connect ROUNDS BATCHES SERVER_PID PORT CLIENT_PID=ADDRESS=SERVER_ADDRESS...
 *
 * Each path connects from its client's namespace to ADDRESS:80, or to ADDRESS if it has a ":PORT", and arrives at
 * SERVER_ADDRESS:PORT. It prints a line per batch: nanoseconds of processor time per round trip, a column per path.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PATHS = 16, REQUEST = 160, REPLY = 220 }; /* bytes of an SDK's GET, and of a mock's answer to it */

struct path {
    int namespace, listener, client, server;
    struct sockaddr_in to;
};

static void fail(const char *what) {
    fprintf(stderr, "pathcost: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void enter(int namespace) {
    if (setns(namespace, CLONE_NEWNET)) fail("setns");
}

static int namespace_of(const char *pid) {
    char name[64];
    snprintf(name, sizeof name, "/proc/%s/ns/net", pid);
    int descriptor = open(name, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(name);
    return descriptor;
}

static struct sockaddr_in address(char *text, int port) {
    char *colon = strchr(text, ':');
    if (colon) {
        *colon = 0;
        port = atoi(colon + 1);
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, text, &at.sin_addr) != 1) fail(text);
    return at;
}

static void open_connection(struct path *path) {
    int one = 1;
    path->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (path->client < 0) fail("socket");
    if (connect(path->client, (struct sockaddr *)&path->to, sizeof path->to)) fail("connect");
    path->server = accept(path->listener, NULL, NULL);
    if (path->server < 0) fail("accept");
    setsockopt(path->client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(path->server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void pass(int from, int to, size_t size) {
    static char data[4096];
    if (send(from, data, size, 0) != (ssize_t)size) fail("send");
    if (recv(to, data, size, MSG_WAITALL) != (ssize_t)size) fail("recv");
}

static void round_trip(struct path *path) {
    pass(path->client, path->server, REQUEST);
    pass(path->server, path->client, REPLY);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(int count, char **arguments) {
    if (count < 7 || count - 6 > MOST_PATHS) {
        fprintf(stderr, "usage: see pathcost.c\n");
        return 2;
    }
    int keep = !strcmp(arguments[1], "keep"), rounds = atoi(arguments[2]), batches = atoi(arguments[3]), paths = count - 6;
    int servers = namespace_of(arguments[4]), port = atoi(arguments[5]), one = 1;
    struct path path[MOST_PATHS];
    for (int i = 0; i < paths; i++) {
        char *pid = strtok(arguments[6 + i], "="), *to = strtok(NULL, "="), *at = strtok(NULL, "=");
        if (!pid || !to || !at) fail("path");
        struct sockaddr_in local = address(at, port);
        path[i].to = address(to, 80);
        path[i].namespace = namespace_of(pid);
        enter(servers);
        path[i].listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(path[i].listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(path[i].listener, (struct sockaddr *)&local, sizeof local)) fail("bind");
        if (listen(path[i].listener, 8)) fail("listen");
        enter(path[i].namespace);
        open_connection(&path[i]);
    }
    for (int batch = -1; batch < batches; batch++) { /* the first one warms caches up and is not printed */
        double cost[MOST_PATHS];
        for (int turn = 0; turn < paths; turn++) {
            int i = (turn + batch + 1) % paths;
            enter(path[i].namespace);
            double start = now();
            for (int n = 0; n < rounds; n++) {
                if (!keep) {
                    close(path[i].client); /* the client first: TIME_WAIT is its own, in a namespace of its own */
                    close(path[i].server);
                    open_connection(&path[i]);
                }
                round_trip(&path[i]);
            }
            cost[i] = (now() - start) / rounds;
        }
        for (int i = 0; batch >= 0 && i < paths; i++) printf("%.0f%c", cost[i], i + 1 < paths ? ' ' : '\n');
        fflush(stdout);
    }
    return 0;
}
