/* The app: says when it started, in nanoseconds of the monotonic clock, and ends; given a number, sleeps that long. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    fflush(stdout);
    if (count > 1) sleep(atoi(arguments[1]));
    return 0;
}
