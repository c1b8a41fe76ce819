/* An app that is one file: prints what a GET of http://HOST[:PORT]/PATH gives, and fails on any status but 200.
 * Linked with musl, dynamically for the image like Alpine and statically for the one like scratch.
 * (Debian's static busybox has a wget, but glibc's look-ups crash it where there is no glibc.) */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SECONDS 5

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    char host[256], port[8] = "80", path[1024] = "/", request[2048], reply[65536];
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
    struct timeval timeout = {.tv_sec = SECONDS};
    size_t length = 0;
    ssize_t more;

    if (argc != 2 || (sscanf(argv[1], "http://%255[^:/]:%7[0-9]%1023s", host, port, path) < 2 &&
                      sscanf(argv[1], "http://%255[^:/]%1023s", host, path) < 1)) {
        fprintf(stderr, "usage: get http://HOST[:PORT]/PATH\n");
        return 2;
    }
    if (getaddrinfo(host, port, &wanted, &found) != 0) {
        fprintf(stderr, "%s: no such host\n", host);
        return 1;
    }
    int to = socket(found->ai_family, SOCK_STREAM, 0);
    setsockopt(to, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout); /* connect(2) heeds it, too */
    setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (connect(to, found->ai_addr, found->ai_addrlen) < 0)
        return fail("connect");
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host);
    if (write(to, request, size) != size)
        return fail("write");
    while ((more = read(to, reply + length, sizeof reply - 1 - length)) > 0)
        length += more;
    if (more < 0)
        return fail("read");
    reply[length] = 0;
    char *body = strstr(reply, "\r\n\r\n");
    if (!body || strncmp(strchr(reply, ' ') ? strchr(reply, ' ') : "", " 200", 4)) {
        fprintf(stderr, "%.60s\n", reply);
        return 1;
    }
    return fputs(body + 4, stdout) < 0 || fflush(stdout);
}
