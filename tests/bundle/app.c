/* The app of the tests: needs nothing from the root that it runs in. It asks the metadata address for the instance id,
 * prints the answer, and then its own argv and environ, NUL after each: `app [WORD...]`. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char QUESTION[] =
    "GET /latest/meta-data/instance-id HTTP/1.0\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n";

int main(int count, char **words, char **environment) {
    struct sockaddr_in service = {.sin_family = AF_INET, .sin_port = htons(80)};
    inet_pton(AF_INET, "169.254.169.254", &service.sin_addr);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval timeout = {.tv_sec = 3}; /* the negative control gets no answer */
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(connection, (struct sockaddr *)&service, sizeof service) != 0) {
        perror("connect");
        return 1;
    }
    if (write(connection, QUESTION, sizeof QUESTION - 1) < 0) return 1;
    char answer[8192] = {0};
    size_t length = 0;
    for (ssize_t more; length < sizeof answer - 1 &&
                       (more = read(connection, answer + length, sizeof answer - 1 - length)) > 0;)
        length += more;
    char *body = strstr(answer, "\r\n\r\n");
    printf("%s\n", body ? body + 4 : answer);
    for (int at = 0; at < count; at++) fwrite(words[at], 1, strlen(words[at]) + 1, stdout);
    for (char **entry = environment; *entry; entry++) fwrite(*entry, 1, strlen(*entry) + 1, stdout);
    return 0;
}
